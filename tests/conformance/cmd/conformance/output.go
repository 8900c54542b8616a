package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// What is repeated at the end: so many differences, so many bytes of each.
const (
	repeated      = 12
	repeatedBytes = 2000
)

// out is standard output that remembers differences, since the end of a long output is all that is often kept.
var out = &remembering{to: os.Stdout}

type remembering struct {
	mu          sync.Mutex
	to          io.Writer
	differences []string
}

// Write takes a difference in one piece.
func (r *remembering) Write(piece []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text := string(piece); strings.Contains(text, ": DIFFERENCE\n") && len(r.differences) < repeated {
		r.differences = append(r.differences, text[:min(len(text), repeatedBytes)])
	}
	return r.to.Write(piece)
}

// sum prints the last line, and before it the differences once more.
func (r *remembering) sum(passed, failed int) {
	for _, difference := range r.differences {
		fmt.Fprintf(r.to, "again: %s\n", strings.TrimRight(difference, "\n"))
	}
	fmt.Fprintf(r.to, "%d passed, %d failed\n", passed, failed)
}
