package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
	return inTemporary(*keep, func(ctx context.Context, root string) (int, error) {
		binary, err := filepath.Abs(*detcd)
		if err != nil {
			return 0, err
		}
		etcd, err := tool(ctx, "", "etcd", "go.etcd.io/etcd/server/v3", "--version")
		if err != nil {
			return 0, err
		}
		binaries := pair.Binaries{Etcd: etcd, Detcd: binary}
		score := sameClusters(ctx, clusters.Config{Binaries: binaries, Root: root, Only: *only, Out: os.Stdout})
		fmt.Printf("%d passed, %d failed\n", score.Passed, score.Failed)
		return score.Failed, nil
	})
}

// sameClusters compares what operators of clusters of either kind are answered.
func sameClusters(ctx context.Context, config clusters.Config) run.Score {
	passed, differences := clusters.Run(ctx, config)
	for _, difference := range differences {
		fmt.Printf("clusters: DIFFERENCE\n  %s\n", strings.ReplaceAll(difference, "\n", "\n  "))
	}
	return run.Score{Passed: passed, Failed: len(differences)}
}
