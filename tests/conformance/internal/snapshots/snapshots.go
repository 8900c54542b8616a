// Package snapshots compares the copies that both servers give away: row by row, by their hashes,
// and by what etcd's own tool makes of detcd's.
package snapshots

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"detcd.io/conformance/internal/process"
)

const (
	callWithin = 60 * time.Second
	revisions  = 17 // bytes of a revision in bucket key
)

// side is one of the two servers.
type side struct {
	name   string
	client *clientv3.Client
	file   string
	rows   map[string][]byte
	leases int
	hash   uint32
}

// Compare makes both servers compact, copies and defragments them, and starts an etcd (binary) on detcd's copy.
// It answers how many facts agree. Both servers are compacted and have a key more after it.
func Compare(ctx context.Context, etcd, detcd *process.Member, binary, dir string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	sides := []*side{{name: "etcd"}, {name: "detcd"}}
	for i, member := range []*process.Member{etcd, detcd} {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + member.Addr()}, DialTimeout: callWithin, Logger: zap.NewNop()})
		if err != nil {
			return 0, err
		}
		defer client.Close()
		sides[i].client, sides[i].file = client, filepath.Join(dir, sides[i].name+".snapshot")
		if err := sides[i].take(ctx); err != nil {
			return 0, fmt.Errorf("%s: %w", sides[i].name, err)
		}
	}
	theirs, ours := sides[0], sides[1]
	if err := equalRows(theirs.rows, ours.rows); err != nil {
		return 0, err
	}
	if theirs.leases != ours.leases {
		return 0, fmt.Errorf("etcd's copy has %d leases, detcd's %d", theirs.leases, ours.leases)
	}
	if theirs.hash != ours.hash {
		return 0, fmt.Errorf("after defragmentation etcd's hash is %d, detcd's %d", theirs.hash, ours.hash)
	}
	if err := restored(ctx, ours, binary, dir); err != nil {
		return 0, fmt.Errorf("detcd's copy restored by etcd: %w", err)
	}
	return len(ours.rows) + 3, nil
}

// take compacts, copies, reads the copy, and defragments.
func (s *side) take(ctx context.Context) error {
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return err
	}
	// A compaction at a plain put is one that etcd survives with all values.
	put, err := s.client.Put(ctx, "\xff\xffsnapshot", "taken")
	if err != nil {
		return err
	}
	if _, err := s.client.Compact(ctx, put.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	if err := s.save(ctx); err != nil {
		return err
	}
	if _, err := s.client.Defragment(ctx, s.client.Endpoints()[0]); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	hash, err := s.client.HashKV(ctx, s.client.Endpoints()[0], 0)
	if err != nil {
		return err
	}
	s.hash = hash.Hash
	return nil
}

func (s *side) save(ctx context.Context) error {
	stream, err := s.client.SnapshotWithVersion(ctx)
	if err != nil {
		return err
	}
	if stream.Version != "3.7.0" {
		return fmt.Errorf("the snapshot's version is %q", stream.Version)
	}
	file, err := os.Create(s.file)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, stream.Snapshot)
	if err := errors.Join(err, file.Close(), stream.Snapshot.Close()); err != nil {
		return err
	}
	status, err := snapshot.NewV3(zap.NewNop()).Status(s.file)
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if status.Version != "3.7.0" {
		return fmt.Errorf("the file's version is %q", status.Version)
	}
	return s.read()
}

func (s *side) read() error {
	db, err := bolt.Open(s.file, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	s.rows = map[string][]byte{}
	return db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return fmt.Errorf("bbolt check: %w", err)
		}
		s.leases = tx.Bucket([]byte("lease")).Stats().KeyN
		return tx.Bucket([]byte("key")).ForEach(func(k, v []byte) error {
			s.rows[string(k)] = bytes.Clone(v)
			return nil
		})
	})
}

func equalRows(theirs, ours map[string][]byte) error {
	for key, value := range theirs {
		if our, there := ours[key]; !there || !bytes.Equal(our, value) {
			return fmt.Errorf("row %s of etcd's copy is %q in detcd's (there: %v), not %q", revision(key), our, there, value)
		}
	}
	for key := range ours {
		if _, there := theirs[key]; !there {
			return fmt.Errorf("row %s of detcd's copy is not in etcd's", revision(key))
		}
	}
	return nil
}

func revision(key string) string {
	if len(key) < revisions {
		return fmt.Sprintf("%q", key)
	}
	return fmt.Sprintf("%d.%d%s", binary.BigEndian.Uint64([]byte(key[:8])), binary.BigEndian.Uint64([]byte(key[9:revisions])), key[revisions:])
}

// restored lets etcd's tool make a data directory of the copy, and etcd start on it.
func restored(ctx context.Context, ours *side, binary, dir string) error {
	member := process.New("etcd on detcd's copy", binary, filepath.Join(dir, "restored"))
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: ours.file, Name: process.MemberName, OutputDataDir: member.DataDir(),
		PeerURLs: []string{process.PeerURL}, InitialCluster: process.MemberName + "=" + process.PeerURL,
		InitialClusterToken: process.ClusterToken,
	})
	if err != nil {
		return err
	}
	if err := member.Start(); err != nil {
		return err
	}
	defer member.Kill()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + member.Addr()}, DialTimeout: callWithin, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	hash, err := client.HashKV(ctx, client.Endpoints()[0], 0)
	if err != nil {
		return err
	}
	if hash.Hash != ours.hash {
		return fmt.Errorf("the hash is %d, detcd's %d", hash.Hash, ours.hash)
	}
	return nil
}
