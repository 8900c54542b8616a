package snapshots

import "testing"

func TestRowsAreEqualOnlyIfAllAre(t *testing.T) {
	key := "\x00\x00\x00\x00\x00\x00\x00\x05_\x00\x00\x00\x00\x00\x00\x00\x01"
	rows := func(value string, more ...string) map[string][]byte {
		rows := map[string][]byte{key: []byte(value)}
		for _, key := range more {
			rows[key] = nil
		}
		return rows
	}
	for _, c := range []struct {
		theirs, ours map[string][]byte
		want         string
	}{
		{rows("a"), rows("a"), ""},
		{rows("a"), rows("b"), `row 5.1 of etcd's copy is "b" in detcd's (there: true), not "a"`},
		{rows("a", key+"t"), rows("a"), `row 5.1t of etcd's copy is "" in detcd's (there: false), not ""`},
		{rows("a"), rows("a", key+"t"), `row 5.1t of detcd's copy is not in etcd's`},
	} {
		got := ""
		if err := equalRows(c.theirs, c.ours); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
