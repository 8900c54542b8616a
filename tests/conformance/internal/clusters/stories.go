package clusters

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// story is a sequence of an operator's requests; the first kind of cluster is the one that is right.
type story struct {
	name  string
	kinds []string
	flags []string
	play  func(context.Context, *telling) error
}

var stories = []story{
	{"strict", []string{"eee", "ddd"}, nil, strict},
	{"lax", []string{"eee", "ddd"}, []string{"--strict-reconfig-check=false"}, lax},
	{"learners", []string{"eee", "ddd", "edd"}, []string{"--max-learners=2"}, learners},
	{"downgrade-of-one", []string{"e", "d"}, nil, downgrade},
	{"downgrade-of-three", []string{"eee", "ddd", "edd", "dee"}, nil, downgrade},
}

// connected is longer than the time after which members count as connected.
const connected = 5500 * time.Millisecond

func (t *telling) clusterOf(i int) pb.ClusterClient {
	return pb.NewClusterClient(t.Members[i].Client.ActiveConnection())
}

// add asks a member for one more. Each judges by the members that it knows of, so it hears of the changes that others made first.
func (t *telling) add(ctx context.Context, by int, url string, isLearner bool) {
	_, err := t.clusterOf(by).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		t.tell(fmt.Sprintf("list of %d", by), err)
	}
	_, err = t.clusterOf(by).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}, IsLearner: isLearner})
	t.tell(fmt.Sprintf("add %s, learner %v, by %d", url, isLearner, by), err)
}

func (t *telling) id(ctx context.Context, i int) (uint64, error) {
	status, err := t.Members[i].Status(ctx)
	if err != nil {
		return 0, err
	}
	return status.Header.MemberId, nil
}

// strict asks for changes that would cost the majority, with everybody there and with one member down.
func strict(ctx context.Context, t *telling) error {
	lost, err := t.id(ctx, 2)
	if err != nil {
		return err
	}
	time.Sleep(connected)
	t.Members[2].Kill()
	if err := t.Settle(ctx); err != nil {
		return err
	}
	t.add(ctx, 0, "http://127.0.0.1:9", false)
	t.add(ctx, 0, "http://127.0.0.1:9", true)
	alive, err := t.id(ctx, 1)
	if err != nil {
		return err
	}
	_, err = t.clusterOf(0).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: alive})
	t.tell("remove one of the two that are left", err)
	_, err = t.clusterOf(0).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 7})
	t.tell("remove nobody", err)
	_, err = t.clusterOf(0).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: lost})
	t.tell("remove the one that is down", err)
	_, err = t.clusterOf(0).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: lost})
	t.tell("remove it again", err)
	t.add(ctx, 1, "http://127.0.0.1:9", true)
	_, err = t.clusterOf(1).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: alive})
	t.tell("promote a voter", err)
	t.add(ctx, 1, "http://127.0.0.1:10", true)
	t.add(ctx, 1, "http://127.0.0.1:10", false)
	t.add(ctx, 0, "http://127.0.0.1:11", false)
	_, err = t.clusterOf(0).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: alive})
	t.tell("remove one of two that have started", err)
	return nil
}

// lax gets what it asks for, even if that is the end of the majority.
func lax(ctx context.Context, t *telling) error {
	t.Members[2].Kill()
	if err := t.Settle(ctx); err != nil {
		return err
	}
	t.add(ctx, 0, "http://127.0.0.1:9", false)
	return nil
}

func learners(ctx context.Context, t *telling) error {
	time.Sleep(connected)
	for i := range 3 {
		t.add(ctx, i, fmt.Sprintf("http://127.0.0.1:%d", 9+i), true)
	}
	list, err := t.clusterOf(0).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	t.tell("list", err, len(list.GetMembers()))
	return nil
}

func (t *telling) downgrade(ctx context.Context, by int, action pb.DowngradeRequest_DowngradeAction, version string) {
	client := pb.NewMaintenanceClient(t.Members[by].Client.ActiveConnection())
	answer, err := client.Downgrade(ctx, &pb.DowngradeRequest{Action: action, Version: version})
	t.tell(fmt.Sprintf("%v %q by %d", action, version, by), err, answer.GetVersion(), answer.GetHeader().GetRevision())
}

const (
	validate = pb.DowngradeRequest_VALIDATE
	enable   = pb.DowngradeRequest_ENABLE
	cancel   = pb.DowngradeRequest_CANCEL
)

// downgrade looks, sets out, is seen by everybody before and after a restart, and gives up.
func downgrade(ctx context.Context, t *telling) error {
	last := len(t.Members) - 1
	if err := t.agreeOn(ctx, "3.7.0", "3.7.0"); err != nil {
		return err
	}
	for _, version := range []string{"", "3", "3.6", "3.6.0", "3.6.99", "v3.6", "3.5", "3.5.0", "3.7", "3.8.0", "4.6", "3.6.0-rc.1", "3.6.0+x", "03.6", "3.6.0.0", "x"} {
		t.downgrade(ctx, last, validate, version)
	}
	t.downgrade(ctx, 0, 7, "3.6")
	t.downgrade(ctx, 0, cancel, "")
	t.downgrade(ctx, 0, enable, "3.5.0")
	t.downgrade(ctx, 0, enable, "now")
	if err := t.look(ctx); err != nil {
		return err
	}
	t.downgrade(ctx, last, enable, "3.6.1")
	t.downgrade(ctx, 0, enable, "3.6.0")
	t.downgrade(ctx, 0, validate, "3.6.0")
	if err := t.agreeOn(ctx, "3.6.0", "3.6.0"); err != nil {
		return err
	}
	if err := t.look(ctx); err != nil {
		return err
	}
	t.downgrade(ctx, 0, validate, "3.5.0")
	t.downgrade(ctx, 0, enable, "3.6.0")
	t.Members[last].Kill()
	if err := t.Members[last].Restart(); err != nil {
		return err
	}
	if err := t.Settle(ctx); err != nil {
		return err
	}
	if err := t.look(ctx); err != nil {
		return err
	}
	t.downgrade(ctx, last, cancel, "")
	if err := t.agreeOn(ctx, "3.7.0", "3.7.0"); err != nil {
		return err
	}
	return t.look(ctx)
}

type versions struct {
	Cluster string `json:"etcdcluster"`
	Storage string `json:"storage"`
}

// agreeOn waits until every member tells these versions.
func (t *telling) agreeOn(ctx context.Context, cluster, storage string) error {
	for _, member := range t.Members {
		err := t.until(ctx, member.Name+" is of "+cluster, func(ctx context.Context) (bool, error) {
			var told versions
			text, err := get(ctx, member.Addr(), "/version")
			if err == nil {
				err = json.Unmarshal([]byte(text), &told)
			}
			return told.Cluster == cluster && told.Storage == storage, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// look notes what every member says of the downgrade.
func (t *telling) look(ctx context.Context) error {
	for i, member := range t.Members {
		status, err := pb.NewMaintenanceClient(member.Client.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return err
		}
		info := status.GetDowngradeInfo()
		enabled, err := get(ctx, member.PeerAddr(), "/downgrade/enabled")
		t.tell(fmt.Sprintf("status of %d", i), err, info.GetEnabled(), info.GetTargetVersion(), status.StorageVersion, status.Version, enabled)
	}
	return nil
}

func get(ctx context.Context, address, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}
