//! The backend quota and its alarm, through the real binary.

use detcd_proto::etcdserverpb as pb;
use detcd_proto::etcdserverpb::kv_client::KvClient;
use detcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use nix::sys::signal::Signal;
use tonic::Code;
use tonic::transport::Channel;

use crate::member::Home;

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

async fn put(client: &mut KvClient<Channel>, bytes: usize) -> Result<(), tonic::Status> {
    let request = pb::PutRequest { key: "k".into(), value: vec![b'v'; bytes].into(), ..Default::default() };
    client.put(request).await.map(drop)
}

async fn alarm(
    home: &Home,
    action: pb::alarm_request::AlarmAction,
    member_id: u64,
) -> Result<Vec<pb::AlarmMember>, tonic::Status> {
    let mut maintenance = maintenance(home).await;
    let request = pb::AlarmRequest { action: action.into(), member_id, alarm: pb::AlarmType::Nospace.into() };
    maintenance.alarm(request).await.map(|response| response.into_inner().alarms)
}

async fn maintenance(home: &Home) -> MaintenanceClient<Channel> {
    MaintenanceClient::connect(format!("http://127.0.0.1:{}", home.client_port)).await.unwrap()
}

#[tokio::test]
async fn a_store_over_its_quota_refuses_growth_until_somebody_makes_room() {
    use pb::alarm_request::AlarmAction::{Activate, Deactivate, Get};
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path()).with(&["--quota-backend-bytes=1048576"]);
    let (mut member, mut client) = home.start().await;
    let id =
        maintenance(&home).await.status(pb::StatusRequest {}).await.unwrap().into_inner().header.unwrap().member_id;
    assert_eq!(alarm(&home, Get, 0).await.unwrap(), []);
    let mut refused = None;
    for _ in 0..400 {
        if let Err(status) = put(&mut client, 20_000).await {
            refused = Some((status.code(), status.message().to_owned()));
            break;
        }
    }
    let no_space = (Code::ResourceExhausted, NO_SPACE.to_owned());
    assert_eq!(refused, Some(no_space.clone()));
    let raised = vec![pb::AlarmMember { member_id: id, alarm: pb::AlarmType::Nospace.into() }];
    assert_eq!(alarm(&home, Get, 0).await.unwrap(), raised);
    let status = maintenance(&home).await.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.errors, status.db_size_quota), (vec![format!("memberID:{id} alarm:NOSPACE")], 1 << 20));
    assert!(home.get(home.client_port, "/health").ends_with("{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"));
    assert!(home.get(home.client_port, "/health?exclude=NOSPACE").ends_with("{\"health\":\"true\",\"reason\":\"\"}"));
    assert!(home.get(home.client_port, "/readyz").ends_with("ok\n"));
    // What does not grow the store goes on.
    client.delete_range(pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    client.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    // A restart with more room remembers the alarm, and only the alarm.
    member.signal(Signal::SIGKILL);
    member.wait();
    let home = home.with(&["--quota-backend-bytes=-1"]);
    let (_member, mut client) = home.start().await;
    let refused = put(&mut client, 1).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().to_owned()), no_space);
    assert_eq!(alarm(&home, Deactivate, 0).await.unwrap(), [], "zero is no wildcard");
    assert_eq!(alarm(&home, Deactivate, id).await.unwrap(), raised);
    put(&mut client, 1).await.unwrap();
    assert_eq!(alarm(&home, Activate, id + 1).await.unwrap()[0].member_id, id + 1);
    assert_eq!(put(&mut client, 1).await.unwrap_err().message(), NO_SPACE);
    let mut maintenance = maintenance(&home).await;
    let unknown = maintenance.alarm(pb::AlarmRequest { action: 7, ..Default::default() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
}
