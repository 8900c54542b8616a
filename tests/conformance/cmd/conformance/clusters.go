package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"detcd.io/conformance/internal/clusters"
	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/run"
)

func clustersOnly(args []string) (failed int, err error) {
	flags := flag.NewFlagSet("clusters", flag.ContinueOnError)
	detcd := flags.String("detcd", "../../target/release/detcd", "the server to compare")
	only := flags.String("only", "", "one story; empty is all")
	keep := flags.Bool("keep", false, "keep the data directories")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	return paired(*keep, *detcd, func(ctx context.Context, binaries pair.Binaries, root string) run.Score {
		return sameClusters(ctx, clusters.Config{Binaries: binaries, Root: root, Only: *only, Out: out})
	})
}

// sameClusters compares what operators of clusters of either kind are answered.
func sameClusters(ctx context.Context, config clusters.Config) run.Score {
	passed, differences := clusters.Run(ctx, config)
	for _, difference := range differences {
		fmt.Fprintf(out, "clusters: DIFFERENCE\n  %s\n", strings.ReplaceAll(difference, "\n", "\n  "))
	}
	return run.Score{Passed: passed, Failed: len(differences)}
}
