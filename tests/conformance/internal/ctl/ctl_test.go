package ctl

import (
	"strings"
	"testing"
)

func TestOnlyAServersOwnNumbersAreLevelled(t *testing.T) {
	a := level([]byte(`[{"Status":{"header":{"cluster_id":18446744073709551615,"raft_term":2},"dbSize":4096,"leader":7}}]`))
	b := level([]byte(`[{"Status":{"header":{"cluster_id":18446744073709551615,"raft_term":3},"dbSize":8192,"leader":7}}]`))
	if a != b {
		t.Errorf("%s\n%s", a, b)
	}
	if !strings.Contains(a, "18446744073709551615") {
		t.Errorf("an id lost digits: %s", a)
	}
	if other := level([]byte(`[{"Status":{"header":{"cluster_id":18446744073709551615},"dbSize":8192,"leader":7}}]`)); other == a {
		t.Error("a missing term was no difference")
	}
	if level([]byte("\"RaftTerm\" : 2\n\"More\" : false\n")) != level([]byte("\"RaftTerm\" : 3\n\"More\" : false\n")) {
		t.Error("a term in the fields form was a difference")
	}
	if level([]byte("a\n1\n")) == level([]byte("a\n2\n")) {
		t.Error("another value was no difference")
	}
}

func TestLogLinesAreNoErrorText(t *testing.T) {
	got := errorLine("{\"level\":\"warn\"}\nError: etcdserver: key is not provided\n")
	if got != "Error: etcdserver: key is not provided" {
		t.Errorf("%q", got)
	}
}
