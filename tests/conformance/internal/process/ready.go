package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// readyWithin bounds a start, replay of the log included.
const readyWithin = 30 * time.Second

// settleWithin bounds the wait for the versions. They come from entries that a
// member logs by itself: waiting keeps those apart from the entries of clients.
// A server that never gets there is not refused here: the comparison will tell.
const settleWithin = 8 * time.Second

const pollEvery = 20 * time.Millisecond

var pollClient = &http.Client{
	Timeout:   10 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// Get fetches a path of the member's client port and returns status and body.
func (m *Member) Get(path string) (int, string, error) {
	response, err := pollClient.Get("http://" + m.client + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, string(body), err
}

func (m *Member) awaitReady() error {
	deadline := time.Now().Add(readyWithin)
	last := errors.New("never asked")
	for time.Now().Before(deadline) {
		if !m.Running() {
			return fmt.Errorf("it ended: %s", m.how())
		}
		code, body, err := m.Get("/health")
		switch {
		case err != nil:
			last = err
		case code == http.StatusOK, strings.Contains(body, "ALARM"): // an alarm is no reason to wait
			m.awaitVersions()
			return nil
		default:
			last = fmt.Errorf("/health answers %d %s", code, body)
		}
		time.Sleep(pollEvery)
	}
	return fmt.Errorf("not ready within %v: %w", readyWithin, last)
}

func (m *Member) awaitVersions() {
	deadline := time.Now().Add(settleWithin)
	for time.Now().Before(deadline) && m.Running() {
		var versions struct {
			Cluster string `json:"etcdcluster"`
			Storage string `json:"storage"`
		}
		_, body, err := m.Get("/version")
		if err == nil && json.Unmarshal([]byte(body), &versions) == nil &&
			strings.HasPrefix(versions.Cluster, "3.7.") && strings.HasPrefix(versions.Storage, "3.7.") {
			return
		}
		time.Sleep(pollEvery)
	}
}
