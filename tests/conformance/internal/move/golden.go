package move

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// pageBytes is the page of a database made on the usual machines.
const pageBytes = 4096

// expectation is what a test of detcd's compares: what the real etcd answers on the directory.
type expectation struct {
	Why       string            `json:"why"`
	Refused   string            `json:"refused,omitempty"`
	Revision  int64             `json:"revision"`
	Compacted int64             `json:"compacted"`
	Hashes    map[string]uint32 `json:"hashes"`
	Keys      int64             `json:"keys"`
	Leases    int               `json:"leases"`
	Alarms    int               `json:"alarms"`
}

// Golden writes the directories that detcd's own tests start on: cut to what is used, each with what etcd answers on it.
func Golden(ctx context.Context, config Config, out string) error {
	for _, kind := range histories {
		if !kind.golden {
			continue
		}
		dir := filepath.Join(config.Root, "golden-"+kind.name)
		source, err := config.make(ctx, kind, filepath.Join(dir, "source"))
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		expected := expectation{Why: kind.why, Refused: kind.refused}
		if kind.refused == "" {
			if err := config.answers(ctx, kind, source, dir, &expected); err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
		}
		to := filepath.Join(out, kind.name)
		if err := errors.Join(os.RemoveAll(to), keep(source, to)); err != nil {
			return err
		}
		text, err := json.MarshalIndent(expected, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, "expect.json"), append(text, '\n'), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(config.Out, "%s: %s\n", kind.name, kind.why)
	}
	return nil
}

func (c *Config) answers(ctx context.Context, kind history, source, dir string, expected *expectation) error {
	j := &journey{Config: c, kind: kind, dir: dir}
	etcd, err := j.start("etcd", c.Etcd, source)
	if err != nil {
		return err
	}
	defer etcd.Kill()
	found, err := j.look(ctx, etcd)
	if err != nil {
		return err
	}
	expected.Revision, expected.Compacted = found.Revision, found.Compacted
	expected.Leases, expected.Alarms = len(found.Leases), len(found.Alarms)
	expected.Hashes = map[string]uint32{}
	for revision, hash := range found.Hashes {
		expected.Hashes[fmt.Sprint(revision)] = hash
	}
	_, err = fmt.Sscanf(found.Keys[found.Revision][0], "%d keys", &expected.Keys)
	return err
}

// keep copies a directory without what was only reserved.
func keep(source, to string) error {
	files, err := filepath.Glob(filepath.Join(source, "member", "*", "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".tmp") {
			continue
		}
		bytes, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		used := len(strings.TrimRight(string(bytes), "\x00"))
		grain := 8
		if filepath.Base(file) == "db" {
			grain = pageBytes
		}
		name, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		// Behind the last frame of a log there is a head of zeros: fewer would pass for a torn one.
		kept := min((used+grain-1)/grain*grain+grain, len(bytes))
		if err := os.WriteFile(target, bytes[:kept], 0o644); err != nil {
			return err
		}
	}
	return nil
}
