// Command conformance compares detcd with the real etcd.
//
//	conformance [flags]                  seeds of random operations, etcdctl, the logs
//	conformance -replay FILE [flags]     repeats a script that an earlier run wrote
//	conformance monitor [flags]          metrics, health checks and variables
//	conformance move [flags]             data directories from etcd to detcd and back
//	conformance peers [flags]            the peers' port, and clusters of both
//	conformance mixed [flags]            operations through clusters of both
//	conformance make-corpus -out DIR     logs for detcd's own tests, judged by etcd's code
//	conformance make-directories -out DIR  data directories for detcd's own tests
//	conformance make-peer-corpus -out DIR  messages and streams of members for detcd's own tests
//	conformance read-wal DIR             what etcd's code reads from one log
//
// Run it in tests/conformance. Its last line is `N passed, M failed`; the exit
// status is 0 if nothing failed, 1 if something did, 2 if it could not start.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"detcd.io/conformance/internal/clusters"
	"detcd.io/conformance/internal/files"
	"detcd.io/conformance/internal/mixed"
	"detcd.io/conformance/internal/monitor"
	"detcd.io/conformance/internal/move"
	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/peers"
	"detcd.io/conformance/internal/process"
	"detcd.io/conformance/internal/run"
	"detcd.io/conformance/internal/script"
)

// The version of the oracle. go.mod pins it; a binary given by a flag must agree.
const etcdVersion = "3.7.3"

func main() {
	status := start(os.Args[1:])
	process.KillAll()
	os.Exit(status)
}

func start(args []string) int {
	var err error
	failed := 0
	switch {
	case len(args) > 0 && args[0] == "make-corpus":
		err = makeCorpus(args[1:])
	case len(args) > 0 && args[0] == "read-wal":
		err = readWAL(args[1:])
	case len(args) > 0 && args[0] == "move":
		failed, err = moveOnly(args[1:])
	case len(args) > 0 && args[0] == "monitor":
		failed, err = watchOnly("monitor", args[1:], watchOver)
	case len(args) > 0 && args[0] == "peers":
		failed, err = watchOnly("peers", args[1:], amongPeers)
	case len(args) > 0 && args[0] == "clusters":
		failed, err = clustersOnly(args[1:])
	case len(args) > 0 && args[0] == "mixed":
		failed, err = mixedOnly(args[1:])
	case len(args) > 0 && args[0] == "make-peer-corpus":
		err = makePeerCorpus(args[1:])
	case len(args) > 0 && args[0] == "make-directories":
		err = makeDirectories(args[1:])
	default:
		failed, err = conform(args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 2
	}
	if failed > 0 {
		return 1
	}
	return 0
}

type options struct {
	detcd, etcd, etcdctl string
	detcdutl, etcdutl    string
	seed                 uint64
	seeds, ops           int
	shrink, timeout      time.Duration
	keep, ctl, move      bool
	monitor, peers       bool
	mixed, clusters      bool
	replay, dir          string
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.StringVar(&o.detcd, "detcd", "../../target/release/detcd", "the server to compare")
	flags.StringVar(&o.etcd, "etcd", "", "the real etcd; empty builds it from the module's dependencies")
	flags.StringVar(&o.etcdctl, "etcdctl", "", "the real etcdctl; empty builds it")
	flags.StringVar(&o.detcdutl, "detcdutl", "", "detcd's offline tool; empty is the one beside detcd")
	flags.StringVar(&o.etcdutl, "etcdutl", "", "the real etcdutl; empty builds it")
	flags.BoolVar(&o.move, "move", true, "take data directories from etcd to detcd and back")
	flags.Uint64Var(&o.seed, "seed", 1, "first seed")
	flags.IntVar(&o.seeds, "seeds", 1, "number of seeds")
	flags.IntVar(&o.ops, "ops", 2000, "drawn operations per seed")
	flags.DurationVar(&o.shrink, "shrink", 2*time.Minute, "longest search for a smaller sequence, per difference; 0 does not search")
	flags.DurationVar(&o.timeout, "timeout", time.Hour, "longest time for everything")
	flags.BoolVar(&o.keep, "keep", false, "keep the data directories of a seed that failed")
	flags.BoolVar(&o.ctl, "ctl", true, "compare what etcdctl and HTTP probes print")
	flags.BoolVar(&o.monitor, "monitor", true, "compare metrics, health checks and variables")
	flags.BoolVar(&o.peers, "peers", true, "compare the peers' port, and run clusters of both")
	flags.BoolVar(&o.mixed, "mixed", true, "run clusters of both kinds")
	flags.BoolVar(&o.clusters, "clusters", true, "compare what operators of clusters are answered")
	flags.StringVar(&o.replay, "replay", "", "repeat this script instead of drawing operations")
	flags.StringVar(&o.dir, "dir", "", "where to put data directories; empty is the system's temporary directory")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("what is %q?", flags.Arg(0))
	}
	return o, nil
}

func conform(args []string) (failed int, err error) {
	o, err := parse(args)
	if err != nil {
		return 0, err
	}
	ctx, cancel := bounded(o.timeout)
	defer cancel()
	if o.detcd, err = filepath.Abs(o.detcd); err != nil {
		return 0, err
	}
	if _, err := os.Stat(o.detcd); err != nil {
		return 0, fmt.Errorf("no detcd to compare: %w", err)
	}
	if o.etcd, err = tool(ctx, o.etcd, "etcd", "go.etcd.io/etcd/server/v3", "--version"); err != nil {
		return 0, err
	}
	root, err := os.MkdirTemp(o.dir, "conformance-")
	if err != nil {
		return 0, err
	}
	config := run.Config{
		Binaries: pair.Binaries{Etcd: o.etcd, Detcd: o.detcd},
		Root:     root, Scripts: "bin", Ops: o.ops, Shrink: o.shrink, Keep: o.keep, Out: out,
	}
	score, err := score(ctx, o, config)
	if err != nil {
		return 0, err
	}
	if !o.keep || score.Failed == 0 {
		_ = os.RemoveAll(root)
	}
	out.sum(score.Passed, score.Failed)
	return score.Failed, nil
}

func score(ctx context.Context, o options, config run.Config) (total run.Score, err error) {
	if o.replay != "" {
		ops, err := script.Read(o.replay)
		if err != nil {
			return total, err
		}
		return run.Replay(ctx, config, ops), nil
	}
	if o.ctl {
		if config.Etcdctl, err = tool(ctx, o.etcdctl, "etcdctl", "go.etcd.io/etcd/etcdctl/v3", "version"); err != nil {
			return total, err
		}
		total.Add(run.Smoke(ctx, config))
	}
	if o.monitor {
		total.Add(watchOver(ctx, config.Binaries, config.Root))
	}
	if o.peers {
		total.Add(amongPeers(ctx, config.Binaries, config.Root))
	}
	if o.move {
		moving, err := moveConfig(ctx, o, config.Root)
		if err != nil {
			return total, err
		}
		passed, failed := move.Run(ctx, moving)
		total.Add(run.Score{Passed: passed, Failed: failed})
	}
	if o.clusters {
		total.Add(sameClusters(ctx, clusters.Config{Binaries: config.Binaries, Root: config.Root, Out: out}))
	}
	if o.mixed {
		total.Add(mixedClusters(ctx, mixed.Config{
			Binaries: config.Binaries, Root: filepath.Join(config.Root, "mixed"), Seed: o.seed, Ops: mixedOps, Out: out,
		}))
	}
	for i := range o.seeds {
		total.Add(run.Seed(ctx, config, o.seed+uint64(i)))
		if ctx.Err() != nil {
			break
		}
	}
	return total, nil
}

// watchOver compares what both tell those who watch over them.
func watchOver(ctx context.Context, binaries pair.Binaries, root string) run.Score {
	passed, differences := monitor.Run(ctx, binaries, root)
	for _, difference := range differences {
		fmt.Fprintf(out, "monitor: DIFFERENCE\n  %s\n", strings.ReplaceAll(difference, "\n", "\n  "))
	}
	fmt.Fprintf(out, "monitor: %d metrics and probes agree\n", passed)
	return run.Score{Passed: passed, Failed: len(differences)}
}

// amongPeers compares what both say to other members, and lets them be members of one cluster.
func amongPeers(ctx context.Context, binaries pair.Binaries, root string) run.Score {
	passed, differences := peers.Run(ctx, binaries, root)
	for _, difference := range differences {
		fmt.Fprintf(out, "peers: DIFFERENCE\n  %s\n", strings.ReplaceAll(difference, "\n", "\n  "))
	}
	fmt.Fprintf(out, "peers: %d answers and steps agree\n", passed)
	return run.Score{Passed: passed, Failed: len(differences)}
}

// watchOnly makes one comparison of a pair.
func watchOnly(name string, args []string, compare func(context.Context, pair.Binaries, string) run.Score) (failed int, err error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	detcd := flags.String("detcd", "../../target/release/detcd", "the server to compare")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	return paired(false, *detcd, compare)
}

// paired finds both servers, makes one comparison of them in a directory of its own, and sums it up.
func paired(keep bool, detcd string, compare func(context.Context, pair.Binaries, string) run.Score) (failed int, err error) {
	return inTemporary(keep, func(ctx context.Context, root string) (int, error) {
		binary, err := filepath.Abs(detcd)
		if err != nil {
			return 0, err
		}
		etcd, err := tool(ctx, "", "etcd", "go.etcd.io/etcd/server/v3", "--version")
		if err != nil {
			return 0, err
		}
		score := compare(ctx, pair.Binaries{Etcd: etcd, Detcd: binary}, root)
		out.sum(score.Passed, score.Failed)
		return score.Failed, nil
	})
}

// moveConfig finds the tools that only moving needs.
func moveConfig(ctx context.Context, o options, root string) (move.Config, error) {
	config := move.Config{Etcd: o.etcd, Detcd: o.detcd, Detcdutl: o.detcdutl, Root: root, Out: out}
	if config.Detcdutl == "" {
		config.Detcdutl = filepath.Join(filepath.Dir(o.detcd), "detcdutl")
	}
	var err error
	config.Etcdutl, err = tool(ctx, o.etcdutl, "etcdutl", "go.etcd.io/etcd/etcdutl/v3", "version")
	return config, err
}

func moveOnly(args []string) (failed int, err error) {
	flags := flag.NewFlagSet("move", flag.ContinueOnError)
	detcd := flags.String("detcd", "../../target/release/detcd", "the server to compare")
	only := flags.String("only", "", "one kind of directory; empty is all")
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
		config, err := moveConfig(ctx, options{detcd: binary, etcd: etcd}, root)
		if err != nil {
			return 0, err
		}
		config.Only = *only
		passed, failed := move.Run(ctx, config)
		out.sum(passed, failed)
		return failed, nil
	})
}

func makeDirectories(args []string) error {
	flags := flag.NewFlagSet("make-directories", flag.ContinueOnError)
	out := flags.String("out", "", "directory to write the cases to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" {
		return fmt.Errorf("make-directories needs -out")
	}
	_, err := inTemporary(false, func(ctx context.Context, root string) (int, error) {
		etcd, err := tool(ctx, "", "etcd", "go.etcd.io/etcd/server/v3", "--version")
		if err != nil {
			return 0, err
		}
		config, err := moveConfig(ctx, options{etcd: etcd}, root)
		if err != nil {
			return 0, err
		}
		return 0, move.Golden(ctx, config, *out)
	})
	return err
}

func makePeerCorpus(args []string) error {
	flags := flag.NewFlagSet("make-peer-corpus", flag.ContinueOnError)
	out := flags.String("out", "", "directory to write the messages and streams to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" {
		return fmt.Errorf("make-peer-corpus needs -out")
	}
	ctx, cancel := bounded(time.Minute)
	defer cancel()
	return peers.Golden(ctx, *out)
}

func inTemporary(keep bool, work func(context.Context, string) (int, error)) (int, error) {
	ctx, cancel := bounded(time.Hour)
	defer cancel()
	root, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return 0, err
	}
	if keep {
		fmt.Println("data directories are in", root)
	} else {
		defer os.RemoveAll(root)
	}
	return work(ctx, root)
}

// bounded is a context that ends with the time or with a signal. Then no server
// may live on: what waits for one sees it end.
func bounded(limit time.Duration) (context.Context, context.CancelFunc) {
	timed, cancel := context.WithTimeout(context.Background(), limit)
	ctx, stop := signal.NotifyContext(timed, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, process.KillAll)
	return ctx, func() { stop(); cancel() }
}

// tool returns the path of a real etcd program: the given one, the one built before, or a new one.
func tool(ctx context.Context, given, name, source, versionFlag string) (string, error) {
	path := given
	if path == "" {
		path = filepath.Join("bin", name)
		if !rightVersion(ctx, path, versionFlag) {
			fmt.Printf("building %s %s\n", name, etcdVersion)
			build := exec.CommandContext(ctx, "go", "build", "-o", path, source)
			build.Stdout, build.Stderr = os.Stdout, os.Stderr
			if err := build.Run(); err != nil {
				return "", fmt.Errorf("build %s: %w", name, err)
			}
		}
	}
	if !rightVersion(ctx, path, versionFlag) {
		return "", fmt.Errorf("%s is not of version %s", path, etcdVersion)
	}
	return filepath.Abs(path)
}

func rightVersion(ctx context.Context, path, versionFlag string) bool {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	out, err := exec.CommandContext(ctx, absolute, versionFlag).Output()
	return err == nil && strings.Contains(strings.ToLower(string(out)), "version: "+etcdVersion)
}

func makeCorpus(args []string) error {
	flags := flag.NewFlagSet("make-corpus", flag.ContinueOnError)
	out := flags.String("out", "", "directory to write the cases to")
	serverWAL := flags.String("server-wal", "", "the log of a stopped real etcd, to add as one more case")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" {
		return fmt.Errorf("make-corpus needs -out")
	}
	cases, err := files.MakeCorpus(*out, *serverWAL)
	if err != nil {
		return err
	}
	fmt.Printf("%d cases in %s\n", cases, *out)
	return nil
}

func readWAL(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("read-wal needs the directory of one log")
	}
	log, err := files.Read(args[0])
	if err != nil {
		return err
	}
	text, err := files.Describe(log)
	fmt.Print(text)
	return err
}
