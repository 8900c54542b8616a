package move

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"detcd.io/conformance/internal/process"
)

const callWithin = 20 * time.Second

// facts is all that a member may not lose on its way from one directory to another.
type facts struct {
	Revision  int64
	Compacted int64
	Keys      map[int64][]string // at each revision that survives, in order
	Hashes    map[int64]uint32
	Leases    []string
	Alarms    []string
	Members   []string
}

func dial(member *process.Member) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{"http://" + member.Addr()}, DialTimeout: callWithin, Logger: zap.NewNop(),
	})
}

// dialNoSpace is for a member whose alarm refuses puts: they are left out.
func dialNoSpace(member *process.Member) (*clientv3.Client, error) {
	client, err := dial(member)
	if err == nil {
		client.KV = noSpace{client.KV}
	}
	return client, err
}

type noSpace struct{ clientv3.KV }

func (kv noSpace) Put(ctx context.Context, key, _ string, _ ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	_, err := kv.Get(ctx, key)
	return nil, err
}

func (kv noSpace) Txn(ctx context.Context) clientv3.Txn { return noTxn{kv.KV.Txn(ctx)} }

type noTxn struct{ clientv3.Txn }

func (txn noTxn) Then(...clientv3.Op) clientv3.Txn { return txn }

// look asks a running member for everything.
func look(ctx context.Context, client *clientv3.Client) (*facts, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*callWithin)
	defer cancel()
	found := &facts{Keys: map[int64][]string{}, Hashes: map[int64]uint32{}}
	endpoint := client.Endpoints()[0]
	now, err := client.HashKV(ctx, endpoint, 0)
	if err != nil {
		return nil, fmt.Errorf("HashKV: %w", err)
	}
	found.Revision, found.Compacted = now.HashRevision, now.CompactRevision
	for revision := max(found.Compacted, 1); revision <= found.Revision; revision++ {
		if revision > found.Compacted {
			hash, err := client.HashKV(ctx, endpoint, revision)
			if err != nil {
				return nil, fmt.Errorf("HashKV at %d: %w", revision, err)
			}
			found.Hashes[revision] = hash.Hash
		}
		for _, at := range []struct {
			key     string
			options []clientv3.OpOption
		}{{"\x00", []clientv3.OpOption{clientv3.WithFromKey()}}, {"key-1", nil}} {
			rows, err := client.Get(ctx, at.key, append(at.options, clientv3.WithRev(revision))...)
			if err != nil {
				return nil, fmt.Errorf("keys at %d: %w", revision, err)
			}
			found.Keys[revision] = append(found.Keys[revision], fmt.Sprintf("%d keys from %q", rows.Count, at.key))
			for _, kv := range rows.Kvs {
				found.Keys[revision] = append(found.Keys[revision], fmt.Sprintf("%q=%q created %d modified %d version %d lease %x",
					kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease))
			}
		}
	}
	return found, found.lookBeside(ctx, client)
}

func (f *facts) lookBeside(ctx context.Context, client *clientv3.Client) error {
	leases, err := client.Leases(ctx)
	if err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	for _, lease := range leases.Leases {
		left, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
		if err != nil {
			return fmt.Errorf("lease %x: %w", lease.ID, err)
		}
		keys := make([]string, 0, len(left.Keys))
		for _, key := range left.Keys {
			keys = append(keys, string(key))
		}
		slices.Sort(keys)
		// A minute's grain: two members are asked one after the other.
		f.Leases = append(f.Leases, fmt.Sprintf("%x granted %d, about %d minutes left: %s",
			int64(lease.ID), left.GrantedTTL, (left.TTL+30)/60, strings.Join(keys, " ")))
	}
	slices.Sort(f.Leases)
	alarms, err := pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{})
	if err != nil {
		return fmt.Errorf("alarms: %w", err)
	}
	for _, alarm := range alarms.Alarms {
		f.Alarms = append(f.Alarms, fmt.Sprintf("%x %v", alarm.MemberID, alarm.Alarm))
	}
	members, err := client.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("members: %w", err)
	}
	for _, member := range members.Members {
		f.Members = append(f.Members, fmt.Sprintf("%x in %x %s %v %v learner %v",
			member.ID, members.Header.ClusterId, member.Name, member.PeerURLs, member.ClientURLs, member.IsLearner))
	}
	return nil
}

// difference says where two members differ, or nothing.
func (f *facts) difference(other *facts) string {
	mine, theirs := f.lines(), other.lines()
	for i := range max(len(mine), len(theirs)) {
		a, b := "nothing", "nothing"
		if i < len(mine) {
			a = mine[i]
		}
		if i < len(theirs) {
			b = theirs[i]
		}
		if a != b {
			return fmt.Sprintf("line %d:\n  %s\n  %s", i+1, a, b)
		}
	}
	return ""
}

func (f *facts) lines() []string {
	text, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return []string{err.Error()}
	}
	return strings.Split(string(text), "\n")
}

// count is how many facts there are.
func (f *facts) count() int {
	count := 2 + len(f.Hashes) + len(f.Leases) + len(f.Alarms) + len(f.Members)
	for _, keys := range f.Keys {
		count += len(keys)
	}
	return count
}
