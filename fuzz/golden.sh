# Sourced by run.sh and coverage.sh: what etcd wrote that a target reads besides seeds/TARGET, relative to fuzz/.
golden() {
  case $1 in
    bbolt) echo ../tests/golden/{bbolt,etcd} ;;
    snap) echo ../tests/golden/etcd ;;
    wal) echo ../tests/golden/wal ;;
  esac
}
