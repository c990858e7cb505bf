package file

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"culvert/internal/cidr"
)

// Scalar is a type of one value that package file does not know by itself.
type Scalar struct {
	typ   reflect.Type
	parse func(text string) (any, error)
}

// ScalarOf makes a Scalar of a function that reads a value and whose error tells what is wrong with it, quoting it.
// The value's String method writes what that function reads.
func ScalarOf[T fmt.Stringer](parse func(text string) (T, error)) Scalar {
	return Scalar{reflect.TypeFor[T](), func(text string) (any, error) { return parse(text) }}
}

var (
	typeDuration = reflect.TypeFor[time.Duration]()
	typePrefix   = reflect.TypeFor[netip.Prefix]()
)

// isScalar says whether a type is one value rather than a mapping or a list.
func (o Options) isScalar(t reflect.Type) bool {
	return o.scalar(t) != nil || t == typePrefix || t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && t.Kind() != reflect.Pointer
}

func (o Options) scalar(t reflect.Type) *Scalar {
	for i := range o.Scalars {
		if o.Scalars[i].typ == t {
			return &o.Scalars[i]
		}
	}
	return nil
}

// parse reads a value of a field's type, or of the items of its list, into v. The error follows "KEY: ".
func (o Options) parse(v reflect.Value, f Field, text string) error {
	switch {
	case text == "":
		return errors.New("is empty; give it a value or leave the key out")
	case !f.raw && !Printable(text):
		return errors.New("holds a line break or another control character")
	case len(f.Values) > 0:
		return choose(v, f.Values, text)
	}
	if s := o.scalar(v.Type()); s != nil {
		parsed, err := s.parse(text)
		if err == nil {
			v.Set(reflect.ValueOf(parsed))
		}
		return err
	}
	switch v.Type() {
	case typeDuration:
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case typePrefix:
		p, err := cidr.Parse(text)
		if err != nil {
			return err
		}
		v.Set(reflect.ValueOf(p))
		return nil
	default:
		if err := parseKind(v, text); err != nil {
			return err
		}
	}
	return f.within(v)
}

// choose sets one of the values that there are.
func choose(v reflect.Value, values []string, text string) error {
	for _, one := range values {
		if one == text {
			v.SetString(text)
			return nil
		}
	}
	return fmt.Errorf("%s is unknown; %s", quote(text), instead(text, values))
}

func parseKind(v reflect.Value, text string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%s is neither true nor false; write one of them", quote(text))
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%s is not a whole number; write digits alone", quote(text))
		}
		v.SetInt(n)
	case reflect.Uint16:
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%s is not a port; give a number from 1 to 65535", quote(text))
		}
		v.SetUint(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || n != n {
			return fmt.Errorf("%s is not a number; write digits alone", quote(text))
		}
		v.SetFloat(n)
	default:
		panic(fmt.Sprintf("a value of type %s in a file", v.Type()))
	}
	return nil
}

// within checks the bounds of a number or duration.
func (f Field) within(v reflect.Value) error {
	low, high := bound(v, f.min), bound(v, f.max)
	strict := f.above != ""
	if strict {
		low = bound(v, f.above)
	}
	switch {
	case low != nil && (number(v) < *low || strict && number(v) == *low):
	case high != nil && number(v) > *high:
	default:
		return nil
	}
	var want string
	switch {
	case strict && f.max != "":
		want = "more than " + f.above + " and at most " + f.max
	case strict:
		want = "more than " + f.above
	case f.max != "":
		want = f.min + " to " + f.max
	default:
		want = f.min + " or more"
	}
	return fmt.Errorf("%s is out of range; give %s", Format(v.Interface()), want)
}

func bound(v reflect.Value, text string) *float64 {
	if text == "" {
		return nil
	}
	limit := reflect.New(v.Type()).Elem()
	if v.Type() == typeDuration {
		d, err := time.ParseDuration(text)
		if err != nil {
			panic(err)
		}
		limit.SetInt(int64(d))
	} else if err := parseKind(limit, text); err != nil {
		panic(err)
	}
	n := number(limit)
	return &n
}

func number(v reflect.Value) float64 {
	switch {
	case v.CanInt():
		return float64(v.Int())
	case v.CanUint():
		return float64(v.Uint())
	}
	return v.Float()
}

// Format is one value as a file has it.
func Format(value any) string {
	switch x := value.(type) {
	case time.Duration:
		return formatDuration(x)
	case netip.Prefix:
		return cidr.Text(x)
	case fmt.Stringer:
		return x.String()
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return fmt.Sprint(value)
}

// ParseDuration reads a duration that is not negative: 500ms, 30s, 5m, 12h, and 90d for days. The error quotes it.
func ParseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		if _, number := strconv.ParseUint(text, 10, 32); number == nil {
			return 0, fmt.Errorf("%s is not a duration; write the unit too, as in %ss", quote(text), text)
		}
		return 0, fmt.Errorf("%s is not a duration; write it as in 500ms, 30s, 5m, 12h or 90d", quote(text))
	}
	return d, nil
}

// formatDuration is what ParseDuration reads, without parts that are zero.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Printable says whether a text is on one line and of nothing that could steer a terminal.
func Printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
