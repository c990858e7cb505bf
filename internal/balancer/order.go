package balancer

// few is how many candidates an Order holds without memory of its own.
const few = 64

// Order is the indices of candidates in the order in which they are to be tried. The zero Order is empty.
type Order struct {
	n    int
	few  [few]uint8
	many []int32 // in place of few, for more candidates or an index that does not fit
}

// Len is how many candidates there are.
func (o *Order) Len() int { return o.n }

// At is the index of the candidate to try as the i-th, from 0. Like a slice, it panics if i is out of range.
func (o *Order) At(i int) int {
	if i < 0 || i >= o.n {
		panic("balancer: index out of range")
	}
	if o.many != nil {
		return int(o.many[i])
	}
	return int(o.few[i])
}

// Grow makes room for n candidates, if they do not fit without.
func (o *Order) Grow(n int) {
	if n > few && o.many == nil {
		o.spill(n)
	}
}

func (o *Order) add(index int32) {
	if o.many == nil && (o.n == few || index > 1<<8-1) {
		o.spill(2 * few)
	}
	if o.many != nil {
		o.many = append(o.many, index)
	} else {
		o.few[o.n] = uint8(index)
	}
	o.n++
}

func (o *Order) spill(room int) {
	o.many = make([]int32, 0, room)
	for _, index := range o.few[:o.n] {
		o.many = append(o.many, int32(index))
	}
}
