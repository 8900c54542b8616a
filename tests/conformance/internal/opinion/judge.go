package opinion

import (
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// Verdict is what the second opinion comes to.
type Verdict int

const (
	// Accepted: there is an order.
	Accepted Verdict = iota
	// Contradicted: there is none.
	Contradicted
	// Unknown: time was up. It is no pass.
	Unknown
)

func (v Verdict) String() string {
	return [...]string{"accepted", "contradicted", "unknown: time was up"}[v]
}

// Judge searches for an order of all operations, at most so long for
// finding one and as long for finding that there is none.
func Judge(history *History, patience time.Duration) Verdict {
	trial := prepare(history)
	if trial.isContradicted {
		return Contradicted
	}
	// An order that is found is an order, however it was searched for. So first
	// lost writes are expected to have happened soon, if at all; and of orders
	// that differ in nothing but which of them came when, one is tried. Only if
	// nothing is found that way, everything has to be tried.
	alike := func(one, other state) bool { return one.look == other.look }
	for _, part := range []time.Duration{32, 4} {
		for _, soon := range []int64{20, 200, 2000} {
			trial.expect(history, soon)
			if trial.search(alike, patience/part) == porcupine.Ok {
				return Accepted
			}
		}
	}
	trial.expect(history, never)
	equal := func(one, other state) bool { return one.sum == other.sum }
	switch trial.search(equal, patience) {
	case porcupine.Ok:
		return Accepted
	case porcupine.Illegal:
		return Contradicted
	}
	return Unknown
}

// expect makes lost writes happen within so many events of their ends, or never.
func (t *trial) expect(history *History, soon int64) {
	// What was told until when.
	type told struct{ completed, revision int64 }
	var floors []told
	newest := int64(1)
	for i := range history.Operations {
		if answer := history.Operations[i].Outcome.Answered; answer != nil {
			newest = max(newest, answer.Revision)
			floors = append(floors, told{history.Operations[i].Completed, newest})
		}
	}
	for i := range t.operations {
		event := t.operations[i].Input.(*event)
		event.upto = t.last
		if event.lease != 0 || soon == never {
			continue
		}
		if home, is := t.facts.homes[event.Operation]; is {
			event.upto = home
			continue
		}
		until := event.Completed + soon
		at := sort.Search(len(floors), func(i int) bool { return floors[i].completed > until })
		if at < len(floors) {
			event.upto = floors[at].revision
		}
	}
}

// search searches for an order, where states that are equal need be tried once.
func (t *trial) search(equal func(one, other state) bool, patience time.Duration) porcupine.CheckResult {
	model := porcupine.Model{
		Init: func() any { return state{store: empty()} },
		Step: func(before, input, _ any) (bool, any) { return t.step(before.(state), input.(*event)) },
		Equal: func(one, other any) bool {
			a, b := one.(state), other.(state)
			return a.revision == b.revision && a.compacted == b.compacted && a.told == b.told && equal(a, b)
		},
		DescribeOperation: func(input, _ any) string { return input.(*event).String() },
	}
	return porcupine.CheckOperationsTimeout(model, t.operations, patience)
}

// Revisions are global, so the history cannot be cut into keys. Instead they
// steer the search, by facts that hold in every order:
//
//   - An answer that told of revision r, and did not write it, stands in the
//     order after the write of r and before the write of r+1. So r+1 is not
//     written before all such answers of r had their turn. Among themselves
//     they may come as they were asked: none of them changes anything.
//   - An answer that may be of the past, of revision r, is right or wrong once r
//     is written, whatever comes after. It needs no turn of its own, only that r
//     can have been written when it was told (isTooEarly).
//   - A write whose answer was lost can only have a revision that no answered
//     write has, and must have written there what others were shown of it.
//   - Whatever anybody was shown of a key tells how many versions it had, and
//     since when: a lost write that leaves no room for them is none (facts).
//   - What was written after the last revision that anybody was told of was
//     never seen. It need not be told apart from what never happened.
//
// Nothing that the rules allow is excluded by them; what is left to search is
// which lost write has which of the few revisions without an owner.
type trial struct {
	operations []porcupine.Operation
	isCluster  bool
	// Answers without a write, by the revision that they tell of.
	tellers map[int64][]*event
	// Answers that may be of the past, by the revision that they tell of.
	belated map[int64][]*Operation
	// What is wrong in any order.
	isContradicted bool
	facts          *facts
	// The last revision that anybody was told of.
	last int64
	// Compactions whose answer was lost, and those that nobody asked for: at a
	// time that nobody knows.
	lostCompactions []lostCompaction
	// Whether there may have been compactions that nobody tells of.
	isCompactedUnknown bool
}

type lostCompaction struct {
	invoked, revision int64
}

// event is one thing that has a place in the order.
type event struct {
	*Operation
	// The last revision that a lost write is expected to have, if any.
	upto int64
	// Its turn among the tellers of its revision.
	turn int
	// A lease whose end this is, instead of an operation.
	lease int64
}

func (e *event) String() string {
	if e.lease != 0 {
		return fmt.Sprintf("end of lease %d", e.lease)
	}
	return fmt.Sprintf("client %d, operation %d", e.Client, e.Invoked)
}

type state struct {
	store
	// Tellers of this revision that had their turn.
	told int
}

const never = math.MaxInt64 - 1

func prepare(history *History) *trial {
	t := &trial{isCluster: history.Head.Kind == "cluster" || history.Head.Kind == "services", tellers: map[int64][]*event{}, belated: map[int64][]*Operation{}, last: 1}
	t.facts = gather(history)
	t.isCompactedUnknown = history.Head.Compacted == nil
	for _, revision := range history.Head.Compacted {
		t.lostCompactions = append(t.lostCompactions, lostCompaction{0, revision})
	}
	leases := map[int64]int64{}
	for i := range history.Operations {
		operation := &history.Operations[i]
		t.note(operation)
		outcome := &operation.Outcome
		happens := outcome.Answered != nil || outcome.Unknown != nil
		if put := operation.Ask.Put; put != nil && put.Lease != 0 && happens {
			if first, is := leases[put.Lease]; !is || operation.Invoked < first {
				leases[put.Lease] = operation.Invoked
			}
		}
	}
	for _, tellers := range t.tellers {
		sort.Slice(tellers, func(i, j int) bool { return tellers[i].Invoked < tellers[j].Invoked })
		for turn, event := range tellers {
			event.turn = turn
		}
	}
	t.isContradicted = t.isTooEarly(history) || !t.agrees(empty())
	// A lease may end on its own and take its keys along.
	for lease, invoked := range leases {
		t.add(&event{lease: lease}, invoked, never)
	}
	return t
}

func (t *trial) add(event *event, call, end int64) {
	t.operations = append(t.operations, porcupine.Operation{Input: event, Call: call, Return: end})
}

// note takes an operation in, if it can have a place in the order.
func (t *trial) note(operation *Operation) {
	ask, outcome := &operation.Ask, &operation.Outcome
	switch {
	case ask.Hash != nil || outcome.Refused != nil:
		// Hashes are for others to judge; who was turned away did nothing.
	case outcome.Rejected != nil:
		isOfLease := outcome.Rejected.Text == leaseNotFound && ask.Put != nil && ask.Put.Lease != 0 && !isUnlawful(ask)
		if !isOfLease {
			t.add(&event{Operation: operation}, operation.Invoked, operation.Completed)
		}
	case outcome.Unknown != nil:
		if ask.Compact != nil {
			t.lostCompactions = append(t.lostCompactions, lostCompaction{operation.Invoked, ask.Compact.Revision})
		} else if mayWrite(ask) {
			t.add(&event{Operation: operation}, operation.Invoked, never)
		}
	case outcome.Answered != nil:
		answer := outcome.Answered
		t.last = max(t.last, answer.Revision)
		t.last = max(t.last, lastShown(ask, answer))
		if isSerializable(ask) {
			t.belated[answer.Revision] = append(t.belated[answer.Revision], operation)
			return
		}
		event := &event{Operation: operation}
		if ask.Compact == nil && !hasWritten(ask, answer) {
			t.tellers[answer.Revision] = append(t.tellers[answer.Revision], event)
		}
		t.add(event, operation.Invoked, operation.Completed)
	}
}

// step is one event in its turn: whether the rules allow it, and what follows.
func (t *trial) step(before state, event *event) (bool, any) {
	switch {
	case event.lease != 0 || event.Outcome.Unknown != nil:
		return t.lost(before, event)
	case event.Outcome.Rejected != nil:
		return t.isRejected(before, event), before
	case event.Ask.Compact != nil:
		if event.Outcome.Answered.Revision < before.revision || len(before.view().rejections(&event.Ask)) > 0 {
			return false, before
		}
		before.compacted = event.Ask.Compact.Revision
		return true, before
	case hasWritten(&event.Ask, event.Outcome.Answered):
		return t.write(before, event)
	}
	return t.read(before, event)
}

// lost is a write that nobody was told of.
func (t *trial) lost(before state, event *event) (bool, any) {
	if before.revision >= event.upto {
		return true, before
	}
	if t.facts.owned[before.revision+1] || before.told < len(t.tellers[before.revision]) {
		return false, before
	}
	if home, is := t.facts.homes[event.Operation]; is && home != before.revision+1 {
		return false, before
	}
	v := before.view()
	if event.lease != 0 {
		v.endLease(event.lease)
	} else if len(v.rejections(&event.Ask)) == 0 {
		apply(v, &event.Ask)
	}
	changes := v.changes()
	if len(changes) == 0 || !t.facts.wasShown(before.revision+1, changes) {
		return false, before
	}
	after := before.with(changes)
	return t.facts.leaveRoom(after) && t.agrees(after), state{store: after}
}

func (t *trial) write(before state, event *event) (bool, any) {
	answer := event.Outcome.Answered
	if answer.Revision != before.revision+1 || before.told < len(t.tellers[before.revision]) {
		return false, before
	}
	v := before.view()
	if len(v.rejections(&event.Ask)) > 0 || !same(&event.Ask, apply(v, &event.Ask), answer) {
		return false, before
	}
	after := before.with(v.changes())
	return t.agrees(after), state{store: after}
}

// agrees says whether answers that may be of the past are right about a
// revision, now that it is written.
func (t *trial) agrees(s store) bool {
	for _, operation := range t.belated[s.revision] {
		if !same(&operation.Ask, apply(s.view(), &operation.Ask), operation.Outcome.Answered) {
			return false
		}
	}
	return true
}

// isTooEarly says whether somebody was told of a revision when it, or one
// before it, had not been asked for.
func (t *trial) isTooEarly(history *History) bool {
	asked := map[int64]int64{}
	for i := range history.Operations {
		operation := &history.Operations[i]
		if answer := operation.Outcome.Answered; answer != nil && hasWritten(&operation.Ask, answer) {
			asked[answer.Revision] = operation.Invoked
		}
	}
	newest := int64(0)
	for revision := int64(1); revision <= t.last; revision++ {
		newest = max(newest, asked[revision])
		for _, operation := range t.belated[revision] {
			if operation.Completed < newest {
				return true
			}
		}
	}
	return len(t.belated[0]) > 0
}

func (t *trial) read(before state, event *event) (bool, any) {
	answer, v := event.Outcome.Answered, before.view()
	if answer.Revision != before.revision || before.told != event.turn || len(v.rejections(&event.Ask)) > 0 {
		return false, before
	}
	if !same(&event.Ask, apply(v, &event.Ask), answer) || len(v.order) > 0 {
		return false, before
	}
	before.told++
	return true, before
}

func (t *trial) isRejected(before state, event *event) bool {
	text := event.Outcome.Rejected.Text
	if before.view().rejections(&event.Ask)[text] {
		return true
	}
	// Who does not ask the leader may be told that the present is the future.
	if text == future && t.isCluster && isSerializable(&event.Ask) {
		return true
	}
	if text != compacted {
		return false
	}
	if t.isCompactedUnknown {
		return true
	}
	asked := revisions(&event.Ask)
	for _, revision := range asked {
		for _, lost := range t.lostCompactions {
			if revision < lost.revision && lost.invoked < event.Completed {
				return true
			}
		}
		// A stream of the newest state may be overtaken by a compaction.
		if event.Ask.Stream != nil && revision == 0 && before.compacted >= 0 {
			return true
		}
	}
	return false
}

// endLease deletes the keys of a lease.
func (v *view) endLease(lease int64) {
	for _, kv := range v.within("\x00", "\x00") {
		if kv.Lease == lease {
			v.change(change{kv: KV{Key: kv.Key, ModRevision: v.revision + 1}, isGone: true})
		}
	}
}

func apply(v *view, ask *Request) *Response {
	switch {
	case ask.Put != nil:
		return v.put(ask.Put)
	case ask.Range != nil:
		return v.find(ask.Range)
	case ask.Stream != nil:
		return v.find(ask.Stream)
	case ask.Delete != nil:
		return v.remove(ask.Delete)
	}
	response := v.run(v.choose(ask.Txn))
	response.Revision = v.now()
	return response
}
