package generate

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"detcd.io/conformance/internal/script"
)

// longTTL keeps a lease alive to the end of any run: the two servers would not end it at the same moment.
const longTTL = 100_000

// maxTTL is the longest that etcd grants.
const maxTTL = 9_000_000_000

// lease draws an operation on one of few leases, which puts use as well. Ids are always given:
// one that the server chooses is a matter of its clock.
func (g *Generator) lease() script.Op {
	id := g.leaseID()
	switch at := g.rng.IntN(100); {
	case at < 40:
		return g.by(script.LeaseGrant, g.grant(id))
	case at < 55:
		return g.by(script.LeaseRevoke, &pb.LeaseRevokeRequest{ID: id})
	case at < 70:
		return g.by(script.LeaseKeepAlive, &pb.LeaseKeepAliveRequest{ID: id})
	case at < 90:
		return g.by(script.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: id, Keys: g.oneIn(2)})
	}
	return g.by(script.LeaseLeases, &pb.LeaseLeasesRequest{})
}

func (g *Generator) grant(id int64) *pb.LeaseGrantRequest {
	ttl := longTTL + g.among(1000)
	switch {
	case g.percent(6):
		ttl = int64(g.oneOf(maxTTL, maxTTL+1, math.MaxInt64))
	case g.percent(1):
		id = math.MinInt64
	}
	return &pb.LeaseGrantRequest{ID: id, TTL: ttl}
}
