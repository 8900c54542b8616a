// Package process starts, watches and ends one server, the real etcd or detcd.
//
// Both get the same command line: only the ports they listen on and the data
// directory differ. What they advertise is fixed and the same, so both compute
// the same member and cluster ids, and the entries they log at bootstrap can be
// compared byte for byte. Nothing outlives the run: children die with their
// parent, with KillAll, and with the process group they lead.
package process

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What both servers advertise. Nobody connects there: a single member calls no peer.
const (
	MemberName   = "conformance"
	PeerURL      = "http://127.0.0.1:12380"
	ClientURL    = "http://127.0.0.1:12379"
	ClusterToken = "detcd-conformance"
)

// stopWithin bounds a graceful stop.
const stopWithin = 20 * time.Second

// Member is one server and its data directory, over any number of starts.
type Member struct {
	Name string
	// Flags come behind the usual ones.
	Flags []string
	// Place is set for one of several members; otherwise it is alone.
	Place  *Place
	binary string
	dir    string
	data   string // where it is not in dir
	starts int

	client  string
	peer    string
	command *exec.Cmd
	ended   chan struct{}
}

// Place is a member's place in a cluster of several. Unlike that of one which is alone, its peers' address is the same at each start.
type Place struct {
	Name    string
	Peer    string // host:port
	Initial string // of the whole cluster, as the flag has it
	State   string // new or existing
}

// Ports returns free addresses for the peers of n members.
func Ports(n int) ([]string, error) {
	ports, err := freePorts(n)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, port := range ports {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", port))
	}
	return addresses, nil
}

// New returns a member that is not started. Everything it writes lies under dir.
func New(name, binary, dir string) *Member {
	return &Member{Name: name, binary: binary, dir: dir}
}

// Become lets another program go on with the directory of a member that is stopped.
func (m *Member) Become(name, binary, dataDir string) {
	m.Name, m.binary, m.data = name, binary, dataDir
}

// Addr is where the running member serves clients.
func (m *Member) Addr() string { return m.client }

// PeerAddr is where the running member serves other members.
func (m *Member) PeerAddr() string { return m.peer }

// DataDir is the member's data directory.
func (m *Member) DataDir() string {
	if m.data != "" {
		return m.data
	}
	return filepath.Join(m.dir, "data")
}

// WALDir is where the member's write-ahead log lies.
func (m *Member) WALDir() string { return filepath.Join(m.DataDir(), "member", "wal") }

func (m *Member) logPath() string { return filepath.Join(m.dir, "log.txt") }

// Start runs the member and returns when it serves clients.
func (m *Member) Start() error {
	const attempts = 3 // another program may take a port between its choice and its use
	var err error
	for range attempts {
		if err = m.launch(); err != nil {
			return err
		}
		if err = m.awaitReady(); err == nil {
			return nil
		}
		m.Kill()
		if !strings.Contains(m.Tail(), "address already in use") {
			break
		}
	}
	return fmt.Errorf("%s did not start: %w\n%s", m.Name, err, m.Tail())
}

func (m *Member) launch() error {
	if m.Running() {
		return fmt.Errorf("%s runs already", m.Name)
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(m.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	m.starts++
	fmt.Fprintf(log, "--- start %d\n", m.starts)

	m.client = fmt.Sprintf("127.0.0.1:%d", ports[0])
	m.peer = fmt.Sprintf("127.0.0.1:%d", ports[1])
	name, peerURL, clientURL, initial, state := MemberName, PeerURL, ClientURL, MemberName+"="+PeerURL, "new"
	if m.Place != nil {
		m.peer, clientURL = m.Place.Peer, "http://"+m.client
		name, peerURL, initial, state = m.Place.Name, "http://"+m.peer, m.Place.Initial, m.Place.State
	}
	command := exec.Command(m.binary, append([]string{
		"--name", name,
		"--data-dir", m.DataDir(),
		"--listen-client-urls", "http://" + m.client,
		"--advertise-client-urls", clientURL,
		"--listen-peer-urls", "http://" + m.peer,
		"--initial-advertise-peer-urls", peerURL,
		"--initial-cluster", initial,
		"--initial-cluster-state", state,
		"--initial-cluster-token", ClusterToken,
	}, m.Flags...)...)
	command.Env = CleanEnv()
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := onLauncher(command.Start); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	m.command, m.ended = command, make(chan struct{})
	register(command.Process.Pid)
	go func(ended chan struct{}) {
		_ = command.Wait()
		forget(command.Process.Pid)
		close(ended)
	}(m.ended)
	return nil
}

// Running says whether the member has been started and has not ended.
func (m *Member) Running() bool {
	if m.command == nil {
		return false
	}
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// Kill ends the member at once, as a crash would.
func (m *Member) Kill() {
	if m.Running() {
		_ = syscall.Kill(-m.command.Process.Pid, syscall.SIGKILL)
		<-m.ended
	}
}

// Stop asks the member to end and returns how it ended.
func (m *Member) Stop() (string, error) {
	if !m.Running() {
		return "", fmt.Errorf("%s had ended before it was asked to: %s\n%s", m.Name, m.how(), m.Tail())
	}
	if err := m.command.Process.Signal(syscall.SIGTERM); err != nil {
		return "", err
	}
	select {
	case <-m.ended:
		return m.how(), nil
	case <-time.After(stopWithin):
		m.Kill()
		return "", fmt.Errorf("%s did not stop within %v of SIGTERM\n%s", m.Name, stopWithin, m.Tail())
	}
}

// Ended waits until the member ends by itself and returns how.
func (m *Member) Ended() (string, error) {
	select {
	case <-m.ended:
		return m.how(), nil
	case <-time.After(stopWithin):
		return "", fmt.Errorf("%s still runs", m.Name)
	}
}

// Log returns all that the member has logged.
func (m *Member) Log() string {
	text, err := os.ReadFile(m.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (m *Member) how() string {
	if m.command == nil || m.command.ProcessState == nil {
		return "never started"
	}
	return m.command.ProcessState.String()
}

// Logged counts the lines of the member's log that contain a text.
func (m *Member) Logged(text string) int {
	data, err := os.ReadFile(m.logPath())
	if err != nil {
		return 0
	}
	return strings.Count(string(data), text)
}

// Tail returns the last lines of the member's log.
func (m *Member) Tail() string {
	const lines = 12
	data, err := os.ReadFile(m.logPath())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return fmt.Sprintf("[end of the log of %s]\n%s", m.Name, strings.Join(all[max(0, len(all)-lines):], "\n"))
}

// CleanEnv is our environment without what would configure etcd or etcdctl.
func CleanEnv() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "ETCD") {
			kept = append(kept, entry)
		}
	}
	return kept
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close() // held until all are chosen, so that they differ
		address, ok := listener.Addr().(*net.TCPAddr)
		if !ok {
			return nil, errors.New("a TCP listener without a TCP address")
		}
		ports = append(ports, address.Port)
	}
	return ports, nil
}

// The parent-death signal is sent when the *thread* that started the child ends,
// so one thread that never ends starts them all.
var (
	launcherOnce sync.Once
	launcherJobs chan func()
)

func onLauncher(start func() error) error {
	launcherOnce.Do(func() {
		launcherJobs = make(chan func())
		go func() {
			runtime.LockOSThread()
			for job := range launcherJobs {
				job()
			}
		}()
	})
	result := make(chan error)
	launcherJobs <- func() { result <- start() }
	return <-result
}

var (
	childrenMu sync.Mutex
	children   = map[int]struct{}{}
)

func register(pid int) {
	childrenMu.Lock()
	defer childrenMu.Unlock()
	children[pid] = struct{}{}
}

func forget(pid int) {
	childrenMu.Lock()
	defer childrenMu.Unlock()
	delete(children, pid)
}

// KillAll ends every process group that this program started and that still runs.
func KillAll() {
	childrenMu.Lock()
	defer childrenMu.Unlock()
	for pid := range children {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}
