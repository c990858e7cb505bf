// Package nearest finds the name that a person meant by one that does not exist: a command, a flag, a key, an upstream.
//
// It looks at letters alone, so the names of any world will do. What is not near is not guessed.
package nearest

// maxTyped is how much of what was typed is looked at: nobody names anything longer by mistake.
const maxTyped = 64

// Name is the name that a person most likely meant by typed, or "" if none is near: it differs by at most a third of
// the letters, or goes on where typed ends.
func Name(typed string, names []string) string {
	if len(typed) > maxTyped {
		return ""
	}
	best, least := "", max(1, len(typed)/3)+1
	for _, name := range names {
		d := least
		if more := len(name) - len(typed); more < least && -more < least {
			d = distance(typed, name)
		}
		if len(typed) >= 3 && len(name) > len(typed) && name[:len(typed)] == typed {
			d = min(d, 1)
		}
		if d < least {
			best, least = name, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their neighbour to make a of b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
