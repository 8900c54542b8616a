package generate

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (g *Generator) rangeOf() *pb.RangeRequest {
	key := g.key()
	request := &pb.RangeRequest{
		Key:          key,
		RangeEnd:     g.rangeEnd(key),
		Limit:        g.limit(),
		Revision:     g.anyRevision(),
		Serializable: g.oneIn(3),
		KeysOnly:     g.percent(15),
		CountOnly:    g.percent(12),
	}
	g.sortOf(request)
	g.filtersOf(request)
	return request
}

// streamOf leaves out most of what a stream refuses, so that most streams deliver.
func (g *Generator) streamOf() *pb.RangeRequest {
	request := g.rangeOf()
	if !g.oneIn(6) {
		request.SortOrder = pb.RangeRequest_NONE
		request.MinModRevision, request.MaxModRevision = 0, 0
		request.MinCreateRevision, request.MaxCreateRevision = 0, 0
	}
	if g.oneIn(2) {
		request.Key, request.RangeEnd = []byte{0}, []byte{0}
	}
	return request
}

func (g *Generator) limit() int64 {
	switch at := g.rng.IntN(100); {
	case at < 55:
		return 0
	case at < 90:
		return 1 + g.among(8)
	case at < 96:
		return 9 + g.among(60)
	}
	return -1 - g.among(3)
}

func (g *Generator) sortOf(request *pb.RangeRequest) {
	if !g.percent(45) {
		return
	}
	request.SortOrder = pb.RangeRequest_SortOrder(g.rng.IntN(3))
	request.SortTarget = pb.RangeRequest_SortTarget(g.rng.IntN(5))
	if g.percent(5) {
		request.SortOrder = pb.RangeRequest_SortOrder(g.oneOf(3, 7, -1))
	}
	if g.percent(5) {
		request.SortTarget = pb.RangeRequest_SortTarget(g.oneOf(5, 9, -1))
	}
}

func (g *Generator) filtersOf(request *pb.RangeRequest) {
	for _, bound := range []*int64{
		&request.MinModRevision, &request.MaxModRevision,
		&request.MinCreateRevision, &request.MaxCreateRevision,
	} {
		if g.percent(8) {
			*bound = g.among(g.revision+3) - 1
		}
	}
}
