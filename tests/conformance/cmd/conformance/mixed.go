package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"detcd.io/conformance/internal/mixed"
	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/run"
)

// mixedOps are the operations of each story when nothing else is said: more than 2000 in all.
const mixedOps = 600

func mixedOnly(args []string) (failed int, err error) {
	flags := flag.NewFlagSet("mixed", flag.ContinueOnError)
	detcd := flags.String("detcd", "../../target/release/detcd", "the server that is in one cluster with etcd")
	seed := flags.Uint64("seed", 1, "first seed")
	seeds := flags.Int("seeds", 1, "number of seeds")
	ops := flags.Int("ops", mixedOps, "operations per story")
	only := flags.String("only", "", "one story; empty is all")
	keep := flags.Bool("keep", false, "keep the data directories")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	return paired(*keep, *detcd, func(ctx context.Context, binaries pair.Binaries, root string) (total run.Score) {
		for i := range *seeds {
			config := mixed.Config{
				Binaries: binaries, Root: filepath.Join(root, fmt.Sprint(i)), Seed: *seed + uint64(i), Ops: *ops, Only: *only, Out: out,
			}
			total.Add(mixedClusters(ctx, config))
		}
		return total
	})
}

// mixedClusters compares clusters of both kinds with a single etcd.
func mixedClusters(ctx context.Context, config mixed.Config) run.Score {
	passed, differences := mixed.Run(ctx, config)
	for _, difference := range differences {
		fmt.Fprintf(out, "mixed: DIFFERENCE\n  %s\n", strings.ReplaceAll(difference, "\n", "\n  "))
	}
	return run.Score{Passed: passed, Failed: len(differences)}
}
