package move

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func some() *facts {
	return &facts{
		Revision: 3, Compacted: 1,
		Keys:   map[int64][]string{2: {`"a"="1"`}, 3: {`"a"="2"`}},
		Hashes: map[int64]uint32{2: 20, 3: 30},
		Leases: []string{"70 granted 10"}, Alarms: []string{"1 NOSPACE"}, Members: []string{"1"},
	}
}

func TestDifferenceSeesEveryFact(t *testing.T) {
	if difference := some().difference(some()); difference != "" {
		t.Fatalf("equal facts differ: %s", difference)
	}
	changes := map[string]func(*facts){
		"revision":   func(f *facts) { f.Revision++ },
		"compaction": func(f *facts) { f.Compacted++ },
		"value":      func(f *facts) { f.Keys[2][0] = `"a"="0"` },
		"history":    func(f *facts) { delete(f.Keys, 2) },
		"hash":       func(f *facts) { f.Hashes[3]++ },
		"lease":      func(f *facts) { f.Leases = nil },
		"alarm":      func(f *facts) { f.Alarms = append(f.Alarms, "2 CORRUPT") },
		"member":     func(f *facts) { f.Members[0] = "2" },
	}
	for name, change := range changes {
		other := some()
		change(other)
		if some().difference(other) == "" || other.difference(some()) == "" {
			t.Errorf("a changed %s goes unseen", name)
		}
	}
}

func TestFingerprintSeesEveryFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func() string {
		text, err := fingerprint(dir)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	write("member/snap/db", "rows")
	before := look()
	write("member/lock", "")
	if look() != before {
		t.Error("the lock of a claim counts")
	}
	write("member/snap/db", "other rows")
	changed := look()
	write("member/lmdb.tmp/data.mdb", "")
	if changed == before || look() == changed {
		t.Error("a changed or a new file goes unseen")
	}
}

func TestKeepCutsOnlyWhatWasReserved(t *testing.T) {
	source, to := filepath.Join(t.TempDir(), "data"), t.TempDir()
	wal, snap := filepath.Join(source, "member", "wal"), filepath.Join(source, "member", "snap")
	for _, dir := range []string{wal, snap} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		filepath.Join(wal, "0.wal"): "log" + strings.Repeat("\x00", 1000),
		filepath.Join(wal, "0.tmp"): strings.Repeat("\x00", 1000),
		filepath.Join(snap, "db"):   strings.Repeat("p", pageBytes+1) + strings.Repeat("\x00", 5*pageBytes),
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := keep(source, to); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"member/wal/0.wal": 16, "member/snap/db": 3 * pageBytes} {
		info, err := os.Stat(filepath.Join(to, name))
		if err != nil || info.Size() != size {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if _, err := os.Stat(filepath.Join(to, "member/wal/0.tmp")); err == nil {
		t.Error("a file made ahead of need is kept")
	}
}
