// Command secondopinion judges histories that the simulator wrote, by Porcupine
// and rules of its own: package opinion.
//
//	secondopinion [-patience 30s] DIRECTORY...       no history may be contradicted
//	secondopinion -bugs [-patience 30s] DIRECTORY... in each directory at least one must be
//
// Its last line is `N accepted, C contradicted, U unknown`. Unknown is one for
// which time was up: it is no pass, and more than a quarter of such fail.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"detcd.io/conformance/internal/opinion"
)

func main() {
	patience := flag.Duration("patience", 30*time.Second, "the longest search for one history")
	areBugs := flag.Bool("bugs", false, "histories of known bugs: at least one of a directory is contradicted")
	flag.Parse()
	score := map[opinion.Verdict]int{}
	failed := flag.NArg() == 0
	for _, directory := range flag.Args() {
		found, err := judgeAll(directory, *patience)
		if err != nil {
			fmt.Fprintln(os.Stderr, "secondopinion:", err)
			os.Exit(2)
		}
		for verdict, count := range found {
			score[verdict] += count
		}
		if *areBugs && found[opinion.Contradicted] == 0 {
			fmt.Printf("%s: a known bug, and none of its histories is contradicted\n", directory)
			failed = true
		}
	}
	all := score[opinion.Accepted] + score[opinion.Contradicted] + score[opinion.Unknown]
	if !*areBugs {
		failed = failed || score[opinion.Contradicted] > 0 || 4*score[opinion.Unknown] > all
	}
	fmt.Printf("%d accepted, %d contradicted, %d unknown\n", score[opinion.Accepted], score[opinion.Contradicted], score[opinion.Unknown])
	if failed || all == 0 {
		os.Exit(1)
	}
}

func judgeAll(directory string, patience time.Duration) (map[opinion.Verdict]int, error) {
	paths, err := filepath.Glob(filepath.Join(directory, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s: no histories", directory)
	}
	found := map[opinion.Verdict]int{}
	for _, path := range paths {
		history, err := opinion.Read(path)
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		verdict := opinion.Judge(history, patience)
		found[verdict]++
		fmt.Printf("%s: %d operations, %s in %.1f s\n", path, len(history.Operations), verdict, time.Since(begin).Seconds())
	}
	return found, nil
}
