// Package clusters plays the same story on a cluster of real etcd members, on one of detcd members and on one of both, and compares what an operator is answered.
package clusters

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"detcd.io/conformance/internal/ensemble"
	"detcd.io/conformance/internal/pair"
)

// Config says what to run.
type Config struct {
	Binaries pair.Binaries
	Root     string
	Only     string // one story; empty is all
	Out      io.Writer
}

// Run plays all stories and returns how many answers agreed.
func Run(ctx context.Context, config Config) (passed int, differences []string) {
	for _, story := range stories {
		if config.Only != "" && config.Only != story.name {
			continue
		}
		began := time.Now()
		count, err := compare(ctx, config, story)
		passed += count
		if err != nil {
			differences = append(differences, fmt.Sprintf("%s: %v", story.name, err))
		}
		fmt.Fprintf(config.Out, "clusters: %s: %d answers agree, %v\n", story.name, count, time.Since(began).Round(time.Second))
	}
	return passed, differences
}

func compare(ctx context.Context, config Config, story story) (passed int, err error) {
	var expected []string
	for i, kinds := range story.kinds {
		t := &telling{dir: filepath.Join(config.Root, "clusters", story.name, kinds)}
		if t.Cluster, err = ensemble.Found(config.Binaries, kinds, t.dir, story.flags...); err != nil {
			return passed, fmt.Errorf("%s: %w", kinds, err)
		}
		err := story.play(ctx, t)
		var tails strings.Builder
		for _, member := range t.Members {
			tails.WriteString(member.Tail() + "\n")
		}
		t.End()
		if err != nil {
			return passed, fmt.Errorf("%s: %w\n%s", kinds, err, tails.String())
		}
		if i == 0 {
			expected = t.told
			continue
		}
		for line := range max(len(expected), len(t.told)) {
			if at(expected, line) != at(t.told, line) {
				return passed, fmt.Errorf("%s says\n  %s\n%s says\n  %s\n%s",
					story.kinds[0], at(expected, line), kinds, at(t.told, line), tails.String())
			}
			passed++
		}
	}
	return passed, nil
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing"
}

// telling is a cluster and what it answered so far.
type telling struct {
	*ensemble.Cluster
	dir  string
	told []string
}

// tell notes an answer: what was asked, and how it ended.
func (t *telling) tell(asked string, err error, more ...any) {
	how := status.Convert(err)
	t.told = append(t.told, fmt.Sprintf("%s: %v %s %v", asked, how.Code(), how.Message(), more))
}

// until waits for something that comes by itself.
func (t *telling) until(ctx context.Context, what string, is func(context.Context) (bool, error)) error {
	return ensemble.Until(ctx, what, func(ctx context.Context) error {
		there, err := is(ctx)
		if err == nil && !there {
			err = fmt.Errorf("not yet")
		}
		return err
	})
}
