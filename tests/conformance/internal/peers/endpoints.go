package peers

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	rpb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// asked is one request to a member's peers' port.
type asked struct {
	name    string
	line    string
	headers map[string]string
	body    []byte
	// Fields of the answer that differ from start to start.
	loose bool
}

// introduction is what every member says of itself.
func introduction(cluster, to string, change ...string) map[string]string {
	headers := map[string]string{
		"X-Server-From": "2", "X-Server-Version": "3.7.3", "X-Min-Cluster-Version": "3.0.0",
		"X-Etcd-Cluster-ID": cluster, "X-Raft-To": to,
	}
	for i := 0; i+1 < len(change); i += 2 {
		if change[i+1] == "" {
			delete(headers, change[i])
		} else {
			headers[change[i]] = change[i+1]
		}
	}
	return headers
}

func wire(message proto.Message) []byte {
	text, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	return text
}

// requests are all that a member may be asked, well and badly. Of a member that is alone nothing changes the log.
func requests(cluster, member string, id uint64) []asked {
	all := []asked{}
	add := func(line string, headers map[string]string, body []byte) {
		all = append(all, asked{name: line, line: line, headers: headers, body: body})
	}
	ok := introduction(cluster, member)
	paths := []string{"/raft", "/raft/", "/raft/snapshot", "/raft/stream", "/raft/stream/", "/raft/stream/msgapp", "/raft/stream/msgapp/",
		"/raft/stream/msgapp/2", "/raft/stream/msgapp/2/", "/raft/stream/message/2", "/raft/stream/message/xyz", "/raft/stream/message/+2",
		"/raft/stream/message/" + member, "/raft/stream/message/10000000000000000", "/raft/stream/other/2", "/members", "/members/", "/members/x",
		"/members/hashkv", "/members/promote/", "/members/promote/5", "/members/promote/x", "/members/promote/5/x", "/members/promote/-1", fmt.Sprintf("/members/promote/%d", id),
		"/leases", "/leases/", "/leases/internal", "/leases/x", "/downgrade/enabled", "/version", "/metrics", "/health", "/v3/kv/range", "/", "/nothing"}
	for _, path := range paths {
		for _, method := range []string{"GET", "POST", "PUT"} {
			if path == "/leases/internal" && method == "POST" {
				continue // below, with a body
			}
			add(method+" "+path, ok, nil)
		}
	}
	for _, change := range [][]string{
		{"X-Server-Version", "2.3.8"}, {"X-Server-Version", ""}, {"X-Server-Version", "nonsense"}, {"X-Server-Version", "3.7"},
		{"X-Server-Version", "3.0.0-rc.1"}, {"X-Server-Version", "9.0.0"}, {"X-Min-Cluster-Version", "3.8.0"}, {"X-Min-Cluster-Version", "3.7.9"},
		{"X-Min-Cluster-Version", ""}, {"X-Min-Cluster-Version", "x"}, {"X-Etcd-Cluster-ID", "1"}, {"X-Etcd-Cluster-ID", ""},
		{"X-Etcd-Cluster-ID", "0" + cluster}, {"X-Etcd-Cluster-ID", strings.ToUpper(cluster)}, {"X-Raft-To", ""}, {"X-Raft-To", "1"},
		{"X-Server-Version", "2.0.0", "X-Etcd-Cluster-ID", "1"}, {"X-Server-From", "xyz"},
	} {
		for _, line := range []string{"POST /raft", "POST /raft/snapshot", "GET /raft/stream/message/2", "GET /members/hashkv", "GET /members"} {
			all = append(all, asked{name: line + " with " + strings.Join(change, " "), line: line, headers: introduction(cluster, member, change...)})
		}
	}
	message := func(kind rpb.MessageType, to uint64) []byte {
		return wire(&rpb.Message{Type: kind.Enum(), From: proto.Uint64(2), To: proto.Uint64(to), Term: proto.Uint64(1)})
	}
	posted := func(name string, body []byte) {
		all = append(all, asked{name: "POST /raft " + name, line: "POST /raft", headers: ok, body: body})
	}
	posted("a heartbeat of the past", message(rpb.MsgHeartbeat, id))
	posted("for another", message(rpb.MsgHeartbeat, id+1))
	posted("of a local kind", message(rpb.MsgHup, id))
	posted("of an unknown kind", message(99, id))
	posted("nonsense", []byte{0xff})
	snapshot := func(name string, length uint64, rest []byte) {
		head := []byte{byte(length >> 56), byte(length >> 48), byte(length >> 40), byte(length >> 32), byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}
		all = append(all, asked{name: "POST /raft/snapshot " + name, line: "POST /raft/snapshot", headers: ok, body: append(head, rest...)})
	}
	heartbeat := message(rpb.MsgHeartbeat, id)
	snapshot("of no length", 0, nil)
	snapshot("of another kind", uint64(len(heartbeat)), heartbeat)
	snapshot("cut off", 100, heartbeat)
	snapshot("of a giant length", 1<<40, heartbeat)
	snapshot("without a snapshot", uint64(len(message(rpb.MsgSnap, id))), message(rpb.MsgSnap, id))
	stray := wire(&rpb.Message{Type: rpb.MsgSnap.Enum(), From: proto.Uint64(2), To: proto.Uint64(id + 1), Term: proto.Uint64(1), Snapshot: &rpb.Snapshot{
		Metadata: &rpb.SnapshotMetadata{Index: proto.Uint64(1), Term: proto.Uint64(1), ConfState: &rpb.ConfState{Voters: []uint64{id}}},
	}})
	snapshot("for another", uint64(len(stray)), stray)
	for _, body := range []string{"{}", "null", `{"revision":1}`, `{"revision":0}`, `{"revision":-1}`, `{"revision":9999}`, `{"Revision":2,"x":[1]}`, `{"revision":"1"}`, `{"revision":1.5}`, "[]", "7", "x"} {
		all = append(all, asked{name: "GET /members/hashkv " + body, line: "GET /members/hashkv", headers: map[string]string{}, body: []byte(body)})
	}
	lease := func(line, name string, body []byte) {
		all = append(all, asked{name: line + " " + name, line: line, headers: map[string]string{}, body: body})
	}
	for _, lent := range []int64{leaseID, 999} {
		lease("POST /leases", fmt.Sprint(lent), wire(&pb.LeaseKeepAliveRequest{ID: lent}))
		for _, keys := range []bool{false, true} {
			lease("POST /leases/internal", fmt.Sprint(lent, keys), wire(&leasepb.LeaseInternalRequest{LeaseTimeToLiveRequest: &pb.LeaseTimeToLiveRequest{ID: lent, Keys: keys}}))
		}
	}
	for _, line := range []string{"POST /leases", "POST /leases/internal"} {
		lease(line, "nonsense", []byte{0xff})
		lease(line, "too long", bytes.Repeat([]byte{0}, 64<<10+1))
	}
	all = append(all, asked{name: "a probe", line: "GET /raft/probing", headers: map[string]string{}, loose: true})
	return all
}

// leaseID is a lease that both members have.
const leaseID = 7

// answer is what a member says to one request, as far as members look at it.
func answer(address string, request asked) string {
	connection, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err.Error()
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(15 * time.Second))
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s HTTP/1.1\r\nHost: member\r\nConnection: close\r\n", request.line)
	for name, value := range request.headers {
		fmt.Fprintf(&text, "%s: %s\r\n", name, value)
	}
	if len(request.body) > 0 || strings.HasPrefix(request.line, "P") {
		fmt.Fprintf(&text, "Content-Length: %d\r\n", len(request.body))
	}
	text.WriteString("\r\n")
	text.Write(request.body)
	// It may be refused before it was read.
	_, _ = connection.Write(text.Bytes())
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		return "cut off"
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	ended := ""
	if err != nil {
		ended = " and breaks off"
	}
	said := string(body)
	if request.loose && len(said) > 25 {
		said = said[:25]
	}
	var headers []string
	for _, name := range []string{"Content-Type", "X-Etcd-Cluster-Id", "X-Server-Version", "X-Content-Type-Options", "Allow", "Location"} {
		if values := response.Header.Values(name); len(values) > 0 {
			headers = append(headers, name+": "+strings.Join(values, " | "))
		}
	}
	return fmt.Sprintf("%d %q%s, %s", response.StatusCode, said, ended, strings.Join(headers, ", "))
}
