//! A region whose instances run, an image of this bench's own program, and instances of it that are reached.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gureum_proto::{
    compute::v1::{
        DescribeInstancesRequest, Instance, InstanceState, LaunchSpec, RunInstancesRequest, TerminateInstancesRequest,
        compute_service_client::ComputeServiceClient,
    },
    security::v1::{
        AuthorizeSecurityGroupIngressRequest, DescribeSecurityGroupsRequest, IpPermission, IpRange,
        security_service_client::SecurityServiceClient,
    },
};
use tokio::process::Command;
use tonic::transport::Channel;

use crate::{
    Failure,
    program::{self, Running},
};

/// Where the program within answers.
pub const PORT: u16 = 8080;
/// Nothing that is waited for here takes longer, unless it fails.
const WITHIN: Duration = Duration::from_secs(300);
/// Between two looks at what no stream tells.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// A region with an image whose instances answer at [`PORT`], and whose default group lets everybody in there.
pub struct Guests {
    pub region: Running,
    pub channel: Channel,
    pub folder: PathBuf,
    pub image: String,
}

impl Guests {
    pub async fn start(folder: &Path) -> Result<Self, Failure> {
        let region = Running::region(Some(folder), &["--driver", "process", "--node-vcpus", "4096", "--node-memory-gib", "4096"]).await?;
        let channel = region.door().await?;
        let endpoint = region.ready.rsplit(' ').next().unwrap_or_default().to_owned();
        let files = folder.join("image");
        fs::create_dir_all(files.join("opt"))?;
        fs::create_dir_all(files.join("etc/gureum"))?;
        fs::copy(env::current_exe()?, files.join("opt/answer"))?;
        let boot = files.join("etc/gureum/boot");
        fs::write(&boot, format!("#!/bin/sh\n/opt/answer answer 0.0.0.0:{PORT} &\n"))?;
        fs::set_permissions(&boot, fs::Permissions::from_mode(0o755))?;
        let imported = Command::new(program::path()?)
            .args(["images", "import", "--name", "answer", "-o", "id", "--endpoint", &endpoint])
            .arg(&files)
            .output()
            .await?;
        let image = String::from_utf8_lossy(&imported.stdout).trim().to_owned();
        if !image.starts_with("ami-") {
            return Err(format!("the image is not imported: {}", String::from_utf8_lossy(&imported.stderr)).into());
        }
        let guests = Self { region, channel, folder: folder.to_owned(), image };
        guests.let_everybody_in().await?;
        Ok(guests)
    }

    async fn let_everybody_in(&self) -> Result<(), Failure> {
        let mut security = SecurityServiceClient::new(self.channel.clone());
        let groups = security.describe_security_groups(DescribeSecurityGroupsRequest::default()).await?.into_inner();
        let group_id = groups.security_groups.first().ok_or("no default group")?.group_id.clone();
        let everybody = IpRange { cidr: "0.0.0.0/0".into(), ..Default::default() };
        let port = Some(i32::from(PORT));
        let permission =
            IpPermission { ip_protocol: "tcp".into(), from_port: port, to_port: port, ip_ranges: vec![everybody], ..Default::default() };
        let request = AuthorizeSecurityGroupIngressRequest { group_id, ip_permissions: vec![permission], ..Default::default() };
        security.authorize_security_group_ingress(request).await?;
        Ok(())
    }

    pub fn compute(&self) -> ComputeServiceClient<Channel> {
        ComputeServiceClient::new(self.channel.clone())
    }

    /// Launches so many at once.
    pub async fn launch(&self, count: i32) -> Result<Vec<String>, Failure> {
        let spec = LaunchSpec { image_id: Some(self.image.clone()), instance_type: Some("t3.nano".into()), ..LaunchSpec::default() };
        let request = RunInstancesRequest { spec: Some(spec), min_count: count, max_count: count, ..Default::default() };
        let launched = self.compute().run_instances(request).await?.into_inner().instances;
        Ok(launched.into_iter().map(|instance| instance.instance_id).collect())
    }

    /// These instances, once all of them are so.
    pub async fn until(&self, ids: &[String], what: impl Fn(&Instance) -> bool) -> Result<Vec<Instance>, Failure> {
        let begun = Instant::now();
        loop {
            let mut found = Vec::new();
            for ids in ids.chunks(1_000) {
                let request = DescribeInstancesRequest { instance_ids: ids.to_vec(), ..Default::default() };
                found.extend(self.compute().describe_instances(request).await?.into_inner().instances);
            }
            if found.iter().all(&what) {
                return Ok(found);
            }
            if begun.elapsed() > WITHIN {
                return Err("instances do not become what they should".into());
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    pub async fn running(&self, count: i32) -> Result<Vec<Instance>, Failure> {
        let ids = self.launch(count).await?;
        self.until(&ids, |instance| instance.state() == InstanceState::Running).await
    }

    /// Ends the instances, and the region.
    pub async fn end(self, ids: Vec<String>) -> Result<(), Failure> {
        self.terminate(ids).await?;
        self.region.kill().await
    }

    pub async fn terminate(&self, ids: Vec<String>) -> Result<(), Failure> {
        for instance_ids in ids.chunks(1_000).map(<[String]>::to_vec) {
            self.compute().terminate_instances(TerminateInstancesRequest { instance_ids, ..Default::default() }).await?;
        }
        self.until(&ids, |instance| instance.state() == InstanceState::Terminated).await?;
        Ok(())
    }
}

pub fn ids(instances: &[Instance]) -> Vec<String> {
    instances.iter().map(|instance| instance.instance_id.clone()).collect()
}

/// Where an instance is reached from outside.
pub fn address(instance: &Instance) -> Result<SocketAddr, Failure> {
    Ok(format!("{}:{PORT}", instance.public_ip_address).parse()?)
}
