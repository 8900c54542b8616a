package compare

import "detcd.io/conformance/internal/script"

// Expected is one difference that is there on purpose. Its name is a row of
// docs/compatibility.md, where the reason is given; a test holds the two together.
type Expected struct {
	Name    string
	Matches func(op script.Op, etcd, detcd Outcome) bool
}

// OnPurpose lists every difference that is not a failure. It is empty: the
// operations generated here meet none. (The differences that concern requests
// which crash the real etcd are not generated, as it could not answer the next one.)
var OnPurpose []Expected

func explain(op script.Op, etcd, detcd Outcome) string {
	for _, expected := range OnPurpose {
		if expected.Matches(op, etcd, detcd) {
			return expected.Name
		}
	}
	return ""
}
