package move

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"detcd.io/conformance/internal/process"
)

// maker lets a real etcd write one directory.
type maker struct {
	*Config
	member *process.Member
	client *clientv3.Client
}

// history is one kind of directory.
type history struct {
	name  string
	why   string
	flags []string // etcd's, besides the usual ones
	write func(context.Context, *maker) error
	// end stops etcd, or not so gently; what comes behind it changes files.
	end []func(context.Context, *maker) error
	// first are the flags of the first start on the directory.
	first []string
	// refused is what detcd says of the directory; empty means that it starts.
	refused string
	// walApart puts the log into a directory of its own.
	walApart bool
	// golden directories are kept in the repository for detcd's own tests.
	golden bool
}

var histories = []history{
	{name: "plain", why: "stopped in order", write: plain, end: steps(stop)},
	{name: "killed", why: "leases, an alarm and a compaction, then SIGKILL: the database is behind the log",
		write: all(plain, compacted, leases, alarm, plain), end: steps(kill), golden: true},
	{name: "young", why: "killed as soon as it served", write: all(), end: steps(kill), golden: true},
	{name: "leases", why: "leases with and without keys", write: all(plain, leases), end: steps(stop)},
	{name: "alarm", why: "NOSPACE is raised", write: all(plain, alarm), end: steps(stop)},
	{name: "compacted", why: "half of the history is gone", write: all(plain, compacted, plain), end: steps(stop)},
	{name: "unfinished-compaction", why: "a compaction was decided and not carried out",
		write: plain, end: steps(stop, scheduleCompaction), golden: true},
	{name: "snapshots", why: "several .snap files, a log that begins behind them, and left-over files",
		flags: []string{"--snapshot-count", "20", "--snapshot-catchup-entries", "5"},
		write: all(plain, plain, plain), end: steps(stop, leaveOver)},
	{name: "wal-apart", why: "the log lies in a directory of its own", write: plain, end: steps(kill), walApart: true},
	{name: "restored", why: "made by etcdutl snapshot restore, never started",
		write: all(plain, leases), end: steps(restore()), golden: true},
	{name: "restored-bumped", why: "the same with its revision raised",
		write: plain, end: steps(restore("--bump-revision", "1000", "--mark-compacted")), golden: true},
	{name: "version-3.6", why: "with the storage version of 3.6", write: plain, end: steps(stop, migrate("3.6")), golden: true},
	{name: "cluster-3.6", why: "of a cluster of 3.6: its version is raised after the start",
		write: plain, end: steps(stop, migrate("3.6"), olderCluster), golden: true},
	{name: "version-3.5", why: "without a storage version, as 3.5 left it", write: plain, end: steps(stop, migrate("3.5"))},
	{name: "auth", why: "authentication is enabled", write: auth, end: steps(stop), golden: true,
		refused: "importing a store with authentication enabled is not built yet in detcd"},
	{name: "auth-in-log", why: "authentication was enabled just before a kill", write: auth, end: steps(kill, forget),
		refused: "importing authentication (entry"},
	{name: "learner", why: "a learner was added", write: add(true), end: steps(stop), golden: true},
	{name: "two-members", why: "a second member was added and never came: the first goes on alone", write: add(false), end: steps(kill),
		first: []string{"--force-new-cluster"}},
	{name: "lost-learner", why: "a learner was added, and is given up", write: add(true), end: steps(kill),
		first: []string{"--force-new-cluster"}},
}

func steps(all ...func(context.Context, *maker) error) []func(context.Context, *maker) error {
	return all
}

func all(parts ...func(context.Context, *maker) error) func(context.Context, *maker) error {
	return func(ctx context.Context, m *maker) error {
		for _, part := range parts {
			if err := part(ctx, m); err != nil {
				return err
			}
		}
		return nil
	}
}

// plain writes keys of every fate: once, often, deleted, born again, and several in one transaction.
func plain(ctx context.Context, m *maker) error { return write(ctx, m.client, 12) }

func write(ctx context.Context, client *clientv3.Client, rounds int) error {
	for i := range rounds {
		key := fmt.Sprintf("key-%d", i%7)
		if _, err := client.Put(ctx, key, strings.Repeat(fmt.Sprintf("value %d ", i), 1+i%3)); err != nil {
			return err
		}
		if i%4 == 3 {
			if _, err := client.Delete(ctx, key); err != nil {
				return err
			}
		}
		if i%5 == 4 {
			_, err := client.Txn(ctx).Then(
				clientv3.OpPut("pair/a", fmt.Sprint(i)), clientv3.OpPut("pair/b", fmt.Sprint(i)),
				clientv3.OpDelete("key-0"), clientv3.OpPut("\x00\xff", ""),
			).Commit()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func compacted(ctx context.Context, m *maker) error {
	now, err := m.client.Get(ctx, "key-1")
	if err != nil {
		return err
	}
	_, err = m.client.Compact(ctx, now.Header.Revision/2, clientv3.WithCompactPhysical())
	return err
}

func leases(ctx context.Context, m *maker) error {
	for i := range 4 {
		id := clientv3.LeaseID(0x7000 + i)
		if _, err := pb.NewLeaseClient(m.client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(id), TTL: int64(3600 + i)}); err != nil {
			return err
		}
		for k := range i {
			if _, err := m.client.Put(ctx, fmt.Sprintf("leased-%d-%d", i, k), "x", clientv3.WithLease(id)); err != nil {
				return err
			}
		}
	}
	return nil
}

func alarm(ctx context.Context, m *maker) error {
	status, err := m.client.Status(ctx, m.client.Endpoints()[0])
	if err != nil {
		return err
	}
	raise := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: status.Header.MemberId, Alarm: pb.AlarmType_NOSPACE}
	_, err = pb.NewMaintenanceClient(m.client.ActiveConnection()).Alarm(ctx, raise)
	if err != nil {
		return err
	}
	// A raised alarm refuses puts; what comes behind it in a history only deletes.
	_, err = m.client.Delete(ctx, "key-2")
	if err != nil {
		return err
	}
	m.client.Close()
	m.client, err = dialNoSpace(m.member)
	return err
}

func auth(ctx context.Context, m *maker) error {
	if err := plain(ctx, m); err != nil {
		return err
	}
	if _, err := m.client.UserAdd(ctx, "root", "secret"); err != nil {
		return err
	}
	if _, err := m.client.UserGrantRole(ctx, "root", "root"); err != nil {
		return err
	}
	_, err := m.client.AuthEnable(ctx)
	return err
}

func add(learner bool) func(context.Context, *maker) error {
	return func(ctx context.Context, m *maker) error {
		if err := plain(ctx, m); err != nil {
			return err
		}
		join := m.client.MemberAdd
		if learner {
			join = m.client.MemberAddAsLearner
		}
		_, err := join(ctx, []string{"http://127.0.0.1:9"})
		return err
	}
}

func stop(_ context.Context, m *maker) error {
	_, err := m.member.Stop()
	return err
}

func kill(_ context.Context, m *maker) error {
	m.member.Kill()
	return nil
}

func (m *maker) database() string { return filepath.Join(m.member.DataDir(), "member", "snap", "db") }

// edit changes the database of a stopped etcd.
func (m *maker) edit(change func(*bbolt.Tx) error) error {
	db, err := bbolt.Open(m.database(), 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		return err
	}
	return errors.Join(db.Update(change), db.Close())
}

// scheduleCompaction leaves what a crash leaves between a compaction's decision and its work.
func scheduleCompaction(_ context.Context, m *maker) error {
	return m.edit(func(tx *bbolt.Tx) error {
		rows := tx.Bucket([]byte("key")).Cursor()
		key, _ := rows.Seek([]byte{0, 0, 0, 0, 0, 0, 0, 9})
		revision := append(append([]byte(nil), key[:8]...), "_\x00\x00\x00\x00\x00\x00\x00\x00"...)
		return tx.Bucket([]byte("meta")).Put([]byte("scheduledCompactRev"), revision)
	})
}

// olderCluster makes the cluster one that has not been raised to 3.7 yet.
func olderCluster(_ context.Context, m *maker) error {
	return m.edit(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("cluster")).Put([]byte("clusterVersion"), []byte("3.6.0"))
	})
}

// forget takes the database back to before its first commit of data, as a crash does that comes early: all of it is in the log.
func forget(_ context.Context, m *maker) error {
	return m.edit(func(tx *bbolt.Tx) error {
		for _, name := range []string{"auth", "authUsers", "authRoles", "key", "members", "cluster", "meta"} {
			if err := tx.DeleteBucket([]byte(name)); err != nil && !errors.Is(err, bbolt.ErrBucketNotFound) {
				return err
			}
		}
		return nil
	})
}

// leaveOver puts files there that no start needs.
func leaveOver(_ context.Context, m *maker) error {
	snap := filepath.Join(m.member.DataDir(), "member", "snap")
	for _, name := range []string{"0000000000000003.snap.db", "tmp123", "db.tmp.77", "0000000000000001-0000000000000001.snap"} {
		if err := os.WriteFile(filepath.Join(snap, name), []byte("left over"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func migrate(version string) func(context.Context, *maker) error {
	return func(ctx context.Context, m *maker) error {
		// The log asks for 3.7 as soon as a member of 3.7 has published itself, so the check is passed over.
		return m.run(ctx, m.Etcdutl, "migrate", "--force", "--data-dir", m.member.DataDir(), "--target-version", version)
	}
}

func restore(flags ...string) func(context.Context, *maker) error {
	return func(ctx context.Context, m *maker) error {
		stream, err := m.client.Snapshot(ctx)
		if err != nil {
			return err
		}
		saved := filepath.Join(filepath.Dir(m.member.DataDir()), "saved.db")
		file, err := os.Create(saved)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, stream)
		if err := errors.Join(err, file.Close(), stream.Close(), stop(ctx, m), os.RemoveAll(m.member.DataDir())); err != nil {
			return err
		}
		return m.run(ctx, m.Etcdutl, append([]string{"snapshot", "restore", saved, "--data-dir", m.member.DataDir(),
			"--name", process.MemberName, "--initial-cluster", process.MemberName + "=" + process.PeerURL,
			"--initial-cluster-token", process.ClusterToken, "--initial-advertise-peer-urls", process.PeerURL}, flags...)...)
	}
}

func (c *Config) run(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return nil
}
