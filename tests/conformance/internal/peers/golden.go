package peers

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	stats "go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// A connection that says nothing shows a sign of life within this time, and a second one after it.
const untilHeartbeat = 4 * time.Second

// Golden writes what etcd's own code says: `messages.txt`, one message per line with its kind, and the two streams from the first
// member to the second, in the bytes that etcd's transport writes.
func Golden(ctx context.Context, out string) error {
	all, err := conversation()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var text strings.Builder
	seen := map[string]bool{}
	kinds := map[pb.MessageType]int{}
	for _, each := range all {
		if !seen[string(each.bytes)] {
			seen[string(each.bytes)] = true
			kinds[each.message.GetType()]++
			fmt.Fprintf(&text, "%s %s\n", each.message.GetType(), hex.EncodeToString(each.bytes))
		}
	}
	if err := os.WriteFile(filepath.Join(out, "messages.txt"), []byte(text.String()), 0o644); err != nil {
		return err
	}
	appends, others, err := streams(ctx, all)
	if err != nil {
		return err
	}
	fmt.Printf("%v; %d bytes of appends, %d of others\n", kinds, len(appends), len(others))
	return errors.Join(
		os.WriteFile(filepath.Join(out, "msgapp.stream"), appends, 0o644),
		os.WriteFile(filepath.Join(out, "message.stream"), others, 0o644),
	)
}

// streams lets etcd's transport send the first member's messages to the second.
func streams(ctx context.Context, all []said) (appends, others []byte, err error) {
	transport := &rafthttp.Transport{
		Logger: zap.NewNop(), ID: 1, ClusterID: 0x1000, Raft: nobody{},
		ServerStats: stats.NewServerStats("", "1"), LeaderStats: stats.NewLeaderStats(zap.NewNop(), "1"),
		ErrorC: make(chan error, 1),
	}
	if err := transport.Start(); err != nil {
		return nil, nil, err
	}
	deaf := httptest.NewServer(http.NotFoundHandler())
	defer deaf.Close()
	transport.AddPeer(types.ID(2), []string{deaf.URL})
	server := httptest.NewServer(transport.Handler())
	defer server.Close()
	read := map[string]chan []byte{}
	for _, name := range []string{"msgapp", "message"} {
		body, err := open(ctx, server.URL+"/raft/stream/"+name+"/2")
		if err != nil {
			return nil, nil, err
		}
		done := make(chan []byte, 1)
		read[name] = done
		go func() {
			// It ends when the transport stops.
			bytes, _ := io.ReadAll(body)
			done <- bytes
		}()
	}
	var messages []*pb.Message
	for _, each := range all {
		if each.message.GetFrom() == 1 && each.message.GetTo() == 2 && each.message.GetType() != pb.MsgSnap {
			var message pb.Message
			if err := proto.Unmarshal(each.bytes, &message); err != nil {
				return nil, nil, err
			}
			messages = append(messages, &message)
		}
	}
	transport.Send(messages[:len(messages)/2])
	time.Sleep(untilHeartbeat)
	transport.Send(messages[len(messages)/2:])
	time.Sleep(untilHeartbeat)
	transport.Stop()
	return <-read["msgapp"], <-read["message"], nil
}

func open(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{
		"X-Server-From": "2", "X-Server-Version": "3.7.3", "X-Min-Cluster-Version": "3.0.0",
		"X-Etcd-Cluster-ID": "1000", "X-Raft-To": "1",
	} {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return response.Body, nil
}

// nobody takes what arrives and does nothing with it.
type nobody struct{}

func (nobody) Process(context.Context, *pb.Message) error { return nil }
func (nobody) IsIDRemoved(uint64) bool                    { return false }
func (nobody) ReportUnreachable(uint64)                   {}
func (nobody) ReportSnapshot(uint64, raft.SnapshotStatus) {}
