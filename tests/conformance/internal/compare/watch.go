package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"detcd.io/conformance/internal/script"
)

// A watch operation is one request on one of a few streams, between two barriers: what
// arrived before the request, what it caused, and nothing still under way.
//
// A barrier writes a key that a watcher of its own waits for: then everything that was told
// live has arrived. It then asks for progress until it is told, which means that every
// watcher of the stream has caught up; a watcher that starts in the future, or was ended by
// a compaction, keeps both servers silent, and that is compared too. etcd answers requests on
// a way of their own, which events and progress may overtake: so each request is followed by
// the creation of one more watcher, and its answer is waited for.
const (
	barrierKey = "\xff\xffbarrier"
	barrierID  = int64(1) << 40

	arrivesWithin = 10 * time.Second
	silentAfter   = 200 * time.Millisecond
	// Questions for progress that a server without laggards leaves unanswered, before it is silent.
	silencesEnough = 4
	askAgain       = 15 * time.Millisecond
)

// watching is one stream and what came on it.
type watching struct {
	stream pb.Watch_WatchClient
	cancel context.CancelFunc
	news   chan struct{}

	mu       sync.Mutex
	arrived  []*pb.WatchResponse // since the last barrier, barriers and progress apart
	asked    int64               // newest watcher of a barrier that was asked for
	answered int64               // newest watcher of a barrier that was created
	barrier  int64               // newest revision that the barrier's watcher was told
	progress int64               // newest progress of all watchers
	err      error
}

func (s *Session) watching(number int) (*watching, error) {
	if w := s.watches[number]; w != nil {
		return w, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := pb.NewWatchClient(s.conn).Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &watching{stream: stream, cancel: cancel, news: make(chan struct{}, 1)}
	if s.watches == nil {
		s.watches = map[int]*watching{}
	}
	s.watches[number] = w
	go w.receive()
	return w, w.answer(barrierID)
}

func (w *watching) send(request *pb.WatchRequest) error { return w.stream.Send(request) }

// answer creates a watcher of the barrier and waits until that is answered.
func (w *watching) answer(id int64) error {
	create := &pb.WatchCreateRequest{Key: []byte(barrierKey), WatchId: id}
	w.mu.Lock()
	w.asked = id
	w.mu.Unlock()
	if err := w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return err
	}
	there, err := w.until(arrivesWithin, func() bool { return w.answered == id })
	if err == nil && !there {
		err = errors.New("a watcher of the barrier is not created")
	}
	return err
}

// ask sends a request and waits until it and all before it are answered.
func (w *watching) ask(request *pb.WatchRequest) error {
	if err := w.send(request); err != nil {
		return err
	}
	return w.fence()
}

// fence waits until all requests so far are answered.
func (w *watching) fence() error {
	if err := w.answer(w.asked + 1); err != nil {
		return err
	}
	cancel := &pb.WatchCancelRequest{WatchId: w.asked}
	return w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: cancel}})
}

func (w *watching) receive() {
	for {
		response, err := w.stream.Recv()
		w.mu.Lock()
		switch {
		case err != nil:
			w.err = err
		case response.WatchId >= barrierID && response.WatchId <= w.asked:
			if response.Created {
				w.answered = response.WatchId
			}
			for _, event := range response.Events {
				w.barrier = event.Kv.ModRevision
			}
		case response.WatchId == -1 && !response.Created && !response.Canceled && len(response.Events) == 0:
			w.progress = response.Header.GetRevision()
		default:
			w.arrived = append(w.arrived, response)
		}
		w.mu.Unlock()
		select {
		case w.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// until waits for something that arrives.
func (w *watching) until(within time.Duration, arrived func() bool) (bool, error) {
	deadline := time.After(within)
	for {
		w.mu.Lock()
		is, err := arrived(), w.err
		w.mu.Unlock()
		if is || err != nil {
			return is, err
		}
		select {
		case <-w.news:
		case <-deadline:
			return false, nil
		}
	}
}

// pass goes through a barrier: what arrived before it, and how far the stream's watchers are (0 if that is not told).
func (s *Session) pass(ctx context.Context, w *watching) ([]*pb.WatchResponse, *pb.PutResponse, bool, error) {
	put, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte(barrierKey)})
	if err != nil {
		return nil, nil, false, err
	}
	at := put.Header.Revision
	there, err := w.until(arrivesWithin, func() bool { return w.barrier >= at })
	if err == nil && !there {
		err = fmt.Errorf("the watcher of the barrier does not learn of revision %d", at)
	}
	there = false
	silences := 0
	for begin := time.Now(); err == nil && !there; {
		gone := time.Since(begin)
		if gone > arrivesWithin || silences == silencesEnough {
			break
		}
		if gone > silentAfter && !s.hasLaggards(ctx) {
			// Silence counts only of a server that has seen the question: on a busy machine that takes its time.
			silences++
			if err = w.fence(); err != nil {
				break
			}
		}
		request := &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}
		if err = w.send(&pb.WatchRequest{RequestUnion: request}); err != nil {
			break
		}
		there, err = w.until(askAgain, func() bool { return w.progress >= at })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	arrived := w.arrived
	w.arrived = nil
	return arrived, put, there, err
}

// hasLaggards asks the server's metrics whether some watcher is still behind. No answer counts as yes.
func (s *Session) hasLaggards(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/metrics", nil)
	if err != nil {
		return true
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return true
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return err != nil || !bytes.Contains(text, []byte("\netcd_debugging_mvcc_slow_watcher_total 0\n"))
}

// watch sends one request between two barriers.
func (s *Session) watch(ctx context.Context, op script.Op, request *pb.WatchRequest) Outcome {
	w, err := s.watching(op.Stream)
	if err != nil {
		return failure(nil, err)
	}
	before, _, synced, err := s.pass(ctx, w)
	if err != nil {
		return failure(nil, err)
	}
	if err := w.ask(request); err != nil {
		return failure(nil, err)
	}
	after, put, syncedAfter, err := s.pass(ctx, w)
	if err != nil {
		return failure(nil, err)
	}
	if hasHuge(before) {
		before = mergePast(before)
	}
	responses := byWatcher(before)
	responses = append(responses, byWatcher(mergePast(after))...)
	responses = append(responses, put,
		&pb.WatchResponse{WatchId: -1, Created: synced, Canceled: syncedAfter})
	return Outcome{Responses: responses}
}

// byWatcher puts the responses of each watcher together: etcd leaves the order of different watchers open.
func byWatcher(responses []*pb.WatchResponse) []proto.Message {
	sort.SliceStable(responses, func(i, j int) bool { return responses[i].WatchId < responses[j].WatchId })
	var out []proto.Message
	for _, response := range responses {
		out = append(out, response)
	}
	return out
}

// hugeBytes is a value of which a few fill what a server keeps for one stream: its watchers then read the past (watch-slow-stream).
const hugeBytes = 256 << 10

func hasHuge(responses []*pb.WatchResponse) bool {
	for _, response := range responses {
		for _, event := range response.Events {
			if len(event.Kv.Value) > hugeBytes {
				return true
			}
		}
	}
	return false
}

// mergePast makes one response of all that a watcher was told of the past: how it is cut into batches, and at which revision
// each was read, is a matter of timing. What is told live, between a barrier and the next operation, stays as it came.
func mergePast(responses []*pb.WatchResponse) []*pb.WatchResponse {
	var out []*pb.WatchResponse
	last := map[int64]*pb.WatchResponse{}
	for _, response := range responses {
		if len(response.Events) == 0 {
			out = append(out, response)
			delete(last, response.WatchId)
			continue
		}
		if before := last[response.WatchId]; before != nil {
			before.Events = append(before.Events, response.Events...)
			continue
		}
		response.Header.Revision, response.Fragment = 0, false
		last[response.WatchId] = response
		out = append(out, response)
	}
	return out
}

func (s *Session) closeWatches() {
	for _, w := range s.watches {
		w.cancel()
	}
	s.watches = nil
}
