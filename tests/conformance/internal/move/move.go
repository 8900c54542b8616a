// Package move takes data directories from etcd to detcd and back.
//
// A real etcd writes a directory of each kind. It and detcd start on copies of it and must hold the same: every key at every revision
// that survives, hashes, leases, alarms, members. Then detcd writes on, its directory is exported, a real etcd starts on the export,
// writes on, and detcd starts on that: equal each time. Directories that detcd cannot be yet are refused by name and left as they were.
package move

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"detcd.io/conformance/internal/process"
)

// Config says what to run and where.
type Config struct {
	Etcd, Etcdutl, Detcd, Detcdutl string
	Root                           string
	Only                           string // one kind; empty is all
	Out                            io.Writer
}

// Run takes every kind of directory there and back.
func Run(ctx context.Context, config Config) (passed, failed int) {
	for _, kind := range histories {
		if config.Only != "" && config.Only != kind.name {
			continue
		}
		if ctx.Err() != nil {
			return passed, failed + 1
		}
		count, err := (&journey{Config: &config, kind: kind, dir: filepath.Join(config.Root, "move-"+kind.name)}).travel(ctx)
		passed += count
		if err != nil {
			failed++
			fmt.Fprintf(config.Out, "move %s: DIFFERENCE\n%v\n", kind.name, err)
			continue
		}
		fmt.Fprintf(config.Out, "move %s: %d facts agree\n", kind.name, count)
	}
	return passed, failed
}

type journey struct {
	*Config
	kind  history
	dir   string
	count int
}

func (j *journey) travel(ctx context.Context) (int, error) {
	source, err := j.Config.make(ctx, j.kind, filepath.Join(j.dir, "source"))
	if err != nil {
		return 0, fmt.Errorf("the real etcd: %w", err)
	}
	if j.kind.refused != "" {
		return 1, j.refusal(source)
	}
	etcd, err := j.start("etcd", j.Etcd, source, j.kind.first...)
	if err != nil {
		return 0, err
	}
	expected, err := j.look(ctx, etcd)
	if err := errors.Join(err, end(etcd)); err != nil {
		return 0, err
	}
	detcd, err := j.start("detcd", j.Detcd, source, j.kind.first...)
	if err != nil {
		return 0, err
	}
	if err := j.same(ctx, "detcd on etcd's directory", expected, detcd); err != nil {
		return j.count, err
	}
	return j.count, j.back(ctx, detcd)
}

// back takes detcd's directory to etcd, and that one to detcd again.
func (j *journey) back(ctx context.Context, detcd *process.Member) error {
	expected, err := j.writeOn(ctx, detcd)
	if err != nil {
		return err
	}
	running := exec.CommandContext(ctx, j.Detcdutl, "export", "--data-dir", detcd.DataDir(), "--output-dir", filepath.Join(j.dir, "early"))
	if out, err := running.CombinedOutput(); err == nil || !strings.Contains(string(out), "locked by another process") {
		return fmt.Errorf("an export beside a running member: %v\n%s", err, out)
	}
	detcd.Kill() // the store is behind its log
	exported := filepath.Join(j.dir, "exported", "data")
	args := []string{"export", "--data-dir", detcd.DataDir(), "--output-dir", exported}
	if j.kind.walApart {
		args = append(args, "--wal-dir", walApart(detcd.DataDir()))
	}
	if err := os.MkdirAll(filepath.Dir(exported), 0o700); err != nil {
		return err
	}
	if err := j.run(ctx, j.Detcdutl, args...); err != nil {
		return err
	}
	if j.kind.walApart {
		if err := os.Rename(filepath.Join(exported, "member", "wal"), walApart(exported)); err != nil {
			return err
		}
	}
	etcd, err := j.start("etcd-again", j.Etcd, exported)
	if err != nil {
		return err
	}
	if err := j.same(ctx, "etcd on detcd's export", expected, etcd); err != nil {
		return err
	}
	expected, err = j.writeOn(ctx, etcd)
	if err := errors.Join(err, end(etcd)); err != nil {
		return err
	}
	again, err := j.start("detcd-again", j.Detcd, etcd.DataDir())
	if err != nil {
		return err
	}
	if err := j.same(ctx, "detcd on that directory again", expected, again); err != nil {
		return err
	}
	return end(again)
}

// writeOn changes a member a little and says what it holds then.
func (j *journey) writeOn(ctx context.Context, member *process.Member) (*facts, error) {
	client, err := dial(member)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	alarms, err := client.AlarmList(ctx)
	if err != nil {
		return nil, err
	}
	if len(alarms.Alarms) > 0 {
		_, err = client.Delete(ctx, "key-3")
	} else {
		err = write(ctx, client, 9)
	}
	if err != nil {
		return nil, fmt.Errorf("writing on: %w", err)
	}
	return look(ctx, client)
}

func (j *journey) look(ctx context.Context, member *process.Member) (*facts, error) {
	client, err := dial(member)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return look(ctx, client)
}

func (j *journey) same(ctx context.Context, where string, expected *facts, member *process.Member) error {
	found, err := j.look(ctx, member)
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", where, err, member.Tail())
	}
	if difference := expected.difference(found); difference != "" {
		return fmt.Errorf("%s: %s", where, difference)
	}
	j.count += found.count()
	return nil
}

// start starts a server on a copy of a directory.
func (j *journey) start(name, binary, directory string, flags ...string) (*process.Member, error) {
	member := process.New(name, binary, filepath.Join(j.dir, name))
	member.Flags = flags
	if err := copyTree(directory, member.DataDir()); err != nil {
		return nil, err
	}
	if j.kind.walApart {
		if err := copyTree(walApart(directory), walApart(member.DataDir())); err != nil {
			return nil, err
		}
		member.Flags = append(member.Flags, "--wal-dir", walApart(member.DataDir()))
	}
	return member, member.Start()
}

func end(member *process.Member) error {
	_, err := member.Stop()
	return err
}

// refusal is a start that says why not, and leaves the directory as it was.
func (j *journey) refusal(source string) error {
	before, err := fingerprint(source)
	if err != nil {
		return err
	}
	member := process.New("detcd", j.Detcd, filepath.Join(j.dir, "detcd"))
	if err := copyTree(source, member.DataDir()); err != nil {
		return err
	}
	err = member.Start()
	if err == nil {
		member.Kill()
		return errors.New("detcd starts on it")
	}
	if !strings.Contains(err.Error(), j.kind.refused) {
		return fmt.Errorf("it is refused in other words: %w", err)
	}
	after, err := fingerprint(member.DataDir())
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("the refused start changed the directory:\n%s\n%s", before, after)
	}
	return nil
}

// make lets a real etcd write a directory and returns its path.
func (c *Config) make(ctx context.Context, kind history, dir string) (string, error) {
	m := &maker{Config: c, member: process.New("source", c.Etcd, dir)}
	m.member.Flags = kind.flags
	if kind.walApart {
		m.member.Flags = append(m.member.Flags, "--wal-dir", walApart(m.member.DataDir()))
	}
	if err := m.member.Start(); err != nil {
		return "", err
	}
	defer m.member.Kill()
	var err error
	if m.client, err = dial(m.member); err != nil {
		return "", err
	}
	defer func() { _ = m.client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 3*callWithin)
	defer cancel()
	if err := kind.write(ctx, m); err != nil {
		return "", err
	}
	for _, step := range kind.end {
		if err := step(ctx, m); err != nil {
			return "", err
		}
	}
	return m.member.DataDir(), nil
}

func walApart(dataDir string) string { return dataDir + "-log" }

func copyTree(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cp: %w\n%s", err, out)
	}
	return nil
}

// fingerprint is every file below a directory with a hash of its bytes. The lock of a claim is nobody's loss.
func fingerprint(dir string) (string, error) {
	var text strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "lock" {
			return err
		}
		bytes, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&text, "%s %x\n", name, sha256.Sum256(bytes))
		return err
	})
	return text.String(), err
}
