package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"detcd.io/conformance/internal/pair"
	"detcd.io/conformance/internal/process"
)

// Run compares the peers' ports of both servers, and then lets them be members of one cluster.
func Run(ctx context.Context, binaries pair.Binaries, root string) (passed int, differences []string) {
	same, differences := endpoints(ctx, binaries, root)
	passed += same
	for _, kinds := range []string{"eed", "edd"} {
		steps, err := together(ctx, binaries, kinds, filepath.Join(root, kinds))
		passed += steps
		if err != nil {
			differences = append(differences, fmt.Sprintf("a cluster of %s: %v", kinds, err))
		}
	}
	return passed, differences
}

func dial(addresses ...string) (*clientv3.Client, error) {
	var endpoints []string
	for _, address := range addresses {
		endpoints = append(endpoints, "http://"+address)
	}
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

func endpoints(ctx context.Context, binaries pair.Binaries, root string) (passed int, differences []string) {
	fail := func(err error) (int, []string) { return passed, append(differences, err.Error()) }
	servers, err := pair.Start(binaries, root)
	if err != nil {
		return fail(err)
	}
	defer servers.Remove()
	for _, member := range []*process.Member{servers.Etcd, servers.Detcd} {
		client, err := dial(member.Addr())
		if err != nil {
			return fail(err)
		}
		defer client.Close()
		if _, err := client.Put(ctx, "k", "v"); err != nil {
			return fail(err)
		}
		if _, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: leaseID, TTL: 1000}); err != nil {
			return fail(err)
		}
		if _, err := client.Put(ctx, "lent", "v", clientv3.WithLease(leaseID)); err != nil {
			return fail(err)
		}
	}
	cluster, id, err := identity(servers.Etcd.PeerAddr())
	if err != nil {
		return fail(err)
	}
	for _, request := range requests(cluster, strconv.FormatUint(id, 16), id) {
		etcd, detcd := answer(servers.Etcd.PeerAddr(), request), answer(servers.Detcd.PeerAddr(), request)
		if etcd == detcd {
			passed++
		} else {
			differences = append(differences, fmt.Sprintf("%s\netcd:  %s\ndetcd: %s", request.name, etcd, detcd))
		}
	}
	return passed, differences
}

// identity asks a member who it is.
func identity(address string) (cluster string, id uint64, err error) {
	response, err := http.Get("http://" + address + "/members")
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", 0, err
	}
	var members []struct {
		ID uint64 `json:"id"`
	}
	if err := json.Unmarshal(text, &members); err != nil || len(members) == 0 {
		return "", 0, fmt.Errorf("members: %q: %v", text, err)
	}
	return response.Header.Get("X-Etcd-Cluster-ID"), members[0].ID, nil
}
