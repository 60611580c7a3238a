//! What the tour asks of the region, and how it proves what came of it.

use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use gureum_proto::{
    common::v1::Tag,
    compute::v1::{
        CreateImageRequest, DeleteSnapshotRequest, DeregisterImageRequest, DescribeImagesRequest, DescribeInstancesRequest, Instance,
        InstanceState, LaunchSpec, ModifyInstanceAttributeRequest, RunInstancesRequest, StartInstancesRequest, StopInstancesRequest,
        TagSpecification, TerminateInstancesRequest, block_device_mapping::Device, modify_instance_attribute_request::Change,
    },
    network::v1::{AllocateAddressRequest, AssociateAddressRequest, DisassociateAddressRequest, ReleaseAddressRequest},
    security::v1::{
        AuthorizeSecurityGroupIngressRequest, CreateKeyPairRequest, CreateSecurityGroupRequest, DeleteKeyPairRequest,
        DeleteSecurityGroupRequest, IpPermission, IpRange, RevokeSecurityGroupIngressRequest,
    },
};
use tokio::time::sleep;

use super::{HTTP, PATIENCE, SSH, TYPES, visitor};
use crate::{call, client::Client, failure::Failure, output::Output, pages, resolve, time::monotonic, wait};

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// For an instance to boot, or to end.
const STATE_WITHIN: Duration = Duration::from_secs(120);
const USER: &str = "ec2-user";

pub struct Guide<'a> {
    client: &'a Client,
    out: &'a Output,
    port_offset: u16,
    /// The name of all that the tour makes.
    name: String,
    /// Of the private keys.
    directory: tempfile::TempDir,
    began: Instant,
    step: usize,
    title: &'static str,
    step_began: Instant,
    keys: Vec<String>,
    group: Option<String>,
    instances: Vec<String>,
    image: Option<String>,
    /// Its allocation, where it leads, and itself.
    elastic: Option<(String, String, Ipv4Addr)>,
}

impl<'a> Guide<'a> {
    pub fn new(client: &'a Client, out: &'a Output, port_offset: u16) -> Result<Self, Failure> {
        let directory = tempfile::tempdir().map_err(|error| Failure::Broken(format!("no place for the keys: {error}")))?;
        Ok(Self {
            client,
            out,
            port_offset,
            name: format!("gureum-tour-{}", std::process::id()),
            directory,
            began: monotonic(),
            step: 0,
            title: "",
            step_began: monotonic(),
            keys: Vec::new(),
            group: None,
            instances: Vec::new(),
            image: None,
            elastic: None,
        })
    }

    pub fn begin(&mut self, title: &'static str) -> Result<(), Failure> {
        (self.step, self.title, self.step_began) = (self.step + 1, title, monotonic());
        self.out.progress(title);
        Ok(())
    }

    /// Says what a step has shown.
    pub fn prove(&self, proof: String) -> Result<(), Failure> {
        let took = self.step_began.elapsed();
        if self.out.is_json() {
            let line =
                serde_json::json!({ "step": self.step, "title": self.title, "proof": proof, "milliseconds": took.as_millis() as u64 });
            return self.out.write(&format!("{line}\n"));
        }
        let mark = if self.out.colour() { "\u{1b}[32m✓\u{1b}[0m" } else { "✓" };
        self.out.write(&format!("{mark} {:>2}  {}\n       {proof}  ({} ms)\n", self.step, self.title, took.as_millis()))
    }

    pub fn sum_up(&self) -> Result<(), Failure> {
        let (steps, took) = (self.step, self.began.elapsed().as_secs_f64());
        if self.out.is_json() {
            return self.out.write(&format!("{}\n", serde_json::json!({ "steps": steps, "seconds": took, "proof": "nothing is left" })));
        }
        self.out.write(&format!("All {steps} steps were proved in {took:.1} s, and nothing is left of them.\n"))
    }

    fn failed(&self, what: String) -> Failure {
        Failure::NotReached(format!("step {} ({}) failed: {what}", self.step, self.title))
    }

    pub async fn make_key(&mut self, name: &str) -> Result<String, Failure> {
        let client = self.client;
        let key_name = format!("{}-{name}", self.name);
        let request = CreateKeyPairRequest { key_name: key_name.clone(), ..Default::default() };
        let made = call!(client.security().create_key_pair(request))?;
        self.keys.push(key_name.clone());
        let path = self.key_file(&key_name);
        let file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(made.key_material.as_bytes())).map_err(|error| Failure::file("write", &path, &error))?;
        Ok(key_name)
    }

    fn key_file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub async fn make_group(&mut self) -> Result<String, Failure> {
        let client = self.client;
        let request = CreateSecurityGroupRequest {
            group_name: self.name.clone(),
            description: "made by gureum tour".to_owned(),
            ..Default::default()
        };
        let group = call!(client.security().create_security_group(request))?.security_group.unwrap_or_default().group_id;
        self.group = Some(group.clone());
        Ok(group)
    }

    fn traffic(&self, port: u16) -> (String, Vec<IpPermission>) {
        let anywhere = IpRange { cidr: "0.0.0.0/0".to_owned(), ..Default::default() };
        let port = i32::from(port);
        let permission = IpPermission {
            ip_protocol: "tcp".to_owned(),
            from_port: Some(port),
            to_port: Some(port),
            ip_ranges: vec![anywhere],
            ..Default::default()
        };
        (self.group.clone().unwrap_or_default(), vec![permission])
    }

    pub async fn allow(&self, port: u16) -> Result<(), Failure> {
        let (client, (group_id, ip_permissions)) = (self.client, self.traffic(port));
        let request = AuthorizeSecurityGroupIngressRequest { group_id, ip_permissions, ..Default::default() };
        call!(client.security().authorize_security_group_ingress(request)).map(drop)
    }

    pub async fn revoke(&self, port: u16) -> Result<(), Failure> {
        let (client, (group_id, ip_permissions)) = (self.client, self.traffic(port));
        let request = RevokeSecurityGroupIngressRequest { group_id, ip_permissions, ..Default::default() };
        call!(client.security().revoke_security_group_ingress(request)).map(drop)
    }

    /// Launches an instance and waits until it runs. Its page says which one it is, unless its image has one already.
    pub async fn launch(&mut self, image: &str, key: &str, which: &str) -> Result<String, Failure> {
        let client = self.client;
        let image = resolve::image_to_launch(client, self.out, image, Some(TYPES[0])).await?.image_id;
        let page = "#!/bin/sh\necho \"hello from $(hostname)\" >/var/www/html/index.html\n".to_owned();
        let name = Tag { key: "Name".to_owned(), value: format!("{}-{which}", self.name) };
        let tags = TagSpecification { resource_type: "instance".to_owned(), tags: vec![name] };
        let spec = LaunchSpec {
            image_id: Some(image),
            instance_type: Some(TYPES[0].to_owned()),
            key_name: Some(key.to_owned()),
            security_group_ids: self.group.iter().cloned().collect(),
            associate_public_ip_address: Some(true),
            user_data: self.image.is_none().then(|| page.into_bytes()),
            tag_specifications: vec![tags],
            ..Default::default()
        };
        let request = RunInstancesRequest { spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() };
        let launched = call!(client.compute().run_instances(request))?;
        let id = launched.instances.first().map(|instance| instance.instance_id.clone()).unwrap_or_default();
        self.instances.push(id.clone());
        self.wait(std::slice::from_ref(&id), InstanceState::Running).await?;
        Ok(id)
    }

    pub async fn wait(&self, ids: &[String], state: InstanceState) -> Result<(), Failure> {
        wait::for_instances(self.client, self.out, ids, state, STATE_WITHIN).await.outcome
    }

    pub async fn public_address(&self, id: &str) -> Result<Ipv4Addr, Failure> {
        let client = self.client;
        let request = DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
        let found: Vec<Instance> = pages!(client.compute().describe_instances(request).instances, None)?;
        let text = found.first().map(|instance| instance.public_ip_address.clone()).unwrap_or_default();
        text.parse().map_err(|_| self.failed(format!("{id} has no public address (\"{text}\")")))
    }

    /// The page at an address, as soon as it is served.
    pub async fn page(&self, address: Ipv4Addr) -> Result<String, Failure> {
        let (port, deadline) = (HTTP.saturating_add(self.port_offset), monotonic() + PATIENCE);
        loop {
            match visitor::fetch(address, port).await {
                Ok(page) if !page.is_empty() => return Ok(page),
                other if monotonic() >= deadline => {
                    let why = other.map_or_else(|error| error.to_string(), |_| "an empty page".to_owned());
                    return Err(self.failed(format!(
                        "no page at http://{address}:{port}: {why}. Do the region's instances run (it is not gureum up --driver sim)? \
                         `gureum console` tells what they say"
                    )));
                }
                _ => sleep(BETWEEN_LOOKS).await,
            }
        }
    }

    /// Waits until nobody is let in at a port.
    pub async fn refused(&self, address: Ipv4Addr, port: u16) -> Result<(), Failure> {
        let (port, deadline) = (port.saturating_add(self.port_offset), monotonic() + PATIENCE);
        while visitor::fetch(address, port).await.is_ok() {
            if monotonic() >= deadline {
                return Err(self.failed(format!("http://{address}:{port} still answers")));
            }
            sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }

    /// Logs in with the right key, and not with a wrong one.
    pub async fn log_in(&self, id: &str, address: Ipv4Addr, key: &str) -> Result<String, Failure> {
        if !visitor::has_ssh() {
            return Ok("skipped: ssh or sshd is not on this machine (Debian: openssh-client, openssh-server)".to_owned());
        }
        let (port, deadline) = (SSH.saturating_add(self.port_offset), monotonic() + PATIENCE);
        let key_file = self.key_file(key);
        let host_name = loop {
            let tried = visitor::ssh(&key_file, USER, address, port, "hostname").await.map_err(|error| error.to_string()).flatten();
            match tried {
                Ok(host_name) => break host_name,
                Err(error) if monotonic() >= deadline => return Err(self.failed(format!("ssh {USER}@{address}: {error}"))),
                Err(_) => sleep(BETWEEN_LOOKS).await,
            }
        };
        // A copy has its image's keys too, as in the original; the key of nobody is refused everywhere.
        let wrong = self.directory.path().join("wrong");
        if !wrong.exists() {
            let made = tokio::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&wrong).status().await;
            if !made.is_ok_and(|status| status.success()) {
                return Err(self.failed("ssh-keygen cannot make a key".to_owned()));
            }
        }
        match visitor::ssh(&wrong, USER, address, port, "true").await.map_err(|error| self.failed(error.to_string()))? {
            Ok(_) => Err(self.failed(format!("{id} lets in whoever has a wrong key"))),
            Err(error) if error.contains("Permission denied") => Ok(format!("{USER}@{host_name} lets the key in, and a wrong one not")),
            Err(error) => Err(self.failed(format!("the wrong key is refused otherwise than expected: {error}"))),
        }
    }

    pub async fn stop(&self, id: &str) -> Result<(), Failure> {
        let (client, ids) = (self.client, vec![id.to_owned()]);
        call!(client.compute().stop_instances(StopInstancesRequest { instance_ids: ids.clone(), ..Default::default() }))?;
        self.wait(&ids, InstanceState::Stopped).await
    }

    pub async fn start(&self, id: &str) -> Result<(), Failure> {
        let (client, ids) = (self.client, vec![id.to_owned()]);
        call!(client.compute().start_instances(StartInstancesRequest { instance_ids: ids.clone(), ..Default::default() }))?;
        self.wait(&ids, InstanceState::Running).await
    }

    async fn modify(&self, id: &str, change: Change) -> Result<(), Failure> {
        let client = self.client;
        let request = ModifyInstanceAttributeRequest { instance_id: id.to_owned(), change: Some(change), ..Default::default() };
        call!(client.compute().modify_instance_attribute(request)).map(drop)
    }

    pub async fn resize(&self, id: &str, instance_type: &str) -> Result<(), Failure> {
        self.modify(id, Change::InstanceType(instance_type.to_owned())).await
    }

    pub async fn protect(&self, id: &str, protect: bool) -> Result<(), Failure> {
        self.modify(id, Change::DisableApiTermination(protect)).await
    }

    pub async fn elastic_address(&mut self, id: &str) -> Result<Ipv4Addr, Failure> {
        let client = self.client;
        let address = call!(client.network().allocate_address(AllocateAddressRequest::default()))?.address.unwrap_or_default();
        let ip = address.public_ip.parse().map_err(|_| self.failed(format!("\"{}\" is no address", address.public_ip)))?;
        self.elastic = Some((address.allocation_id, String::new(), ip));
        self.associate(id).await?;
        Ok(ip)
    }

    async fn associate(&mut self, id: &str) -> Result<(), Failure> {
        let client = self.client;
        let Some((allocation_id, ..)) = self.elastic.clone() else { return Ok(()) };
        let request = AssociateAddressRequest {
            allocation_id: allocation_id.clone(),
            instance_id: id.to_owned(),
            allow_reassociation: true,
            ..Default::default()
        };
        let association = call!(client.network().associate_address(request))?.association_id;
        if let Some((_, known, _)) = &mut self.elastic {
            known.clone_from(&association);
        }
        wait::for_association(client, self.out, &allocation_id, &association, STATE_WITHIN).await.outcome
    }

    /// Moves the elastic IP, and answers how long it led nowhere or to the old one.
    pub async fn move_address(&mut self, to: &str) -> Result<Duration, Failure> {
        let began = monotonic();
        self.associate(to).await?;
        if let Some((_, _, address)) = self.elastic {
            self.page(address).await?;
        }
        Ok(began.elapsed())
    }

    pub async fn make_image(&mut self, id: &str) -> Result<String, Failure> {
        let client = self.client;
        let request = CreateImageRequest { instance_id: id.to_owned(), name: self.name.clone(), ..Default::default() };
        let image = call!(client.compute().create_image(request))?.image.unwrap_or_default().image_id;
        self.image = Some(image.clone());
        wait::for_image(client, self.out, &image, STATE_WITHIN).await.outcome?;
        Ok(image)
    }

    /// Why termination is refused.
    pub async fn termination_refused(&self, id: &str) -> Result<String, Failure> {
        match self.terminate(&[id.to_owned()]).await {
            Ok(()) => Err(self.failed(format!("{id} was protected and terminates all the same"))),
            Err(failure) => failure.reason().ok_or(failure),
        }
    }

    pub async fn terminate(&self, ids: &[String]) -> Result<(), Failure> {
        let client = self.client;
        let request = TerminateInstancesRequest { instance_ids: ids.to_vec(), ..Default::default() };
        call!(client.compute().terminate_instances(request)).map(drop)
    }

    /// Removes all that the tour made. What cannot be removed is told, and the rest is.
    pub async fn remove_all(&mut self) -> Result<(), Failure> {
        self.begin("remove everything")?;
        let client = self.client;
        let mut outcome = Ok(());
        let mut note = |done: Result<(), Failure>| {
            if let Err(failure) = done
                && outcome.is_ok()
            {
                outcome = Err(failure);
            }
        };
        for id in &self.instances {
            // It may be protected still, or gone already.
            let _ = self.protect(id, false).await;
        }
        if !self.instances.is_empty() {
            let _ = self.terminate(&self.instances).await;
            note(self.wait(&self.instances, InstanceState::Terminated).await);
        }
        if let Some((allocation_id, association_id, _)) = self.elastic.take() {
            // It may have gone with its instance.
            let request = DisassociateAddressRequest { association_id, ..Default::default() };
            let _ = call!(client.network().disassociate_address(request));
            let request = ReleaseAddressRequest { allocation_id, ..Default::default() };
            note(call!(client.network().release_address(request)).map(drop));
        }
        if let Some(image_id) = self.image.take() {
            let request = DescribeImagesRequest { image_ids: vec![image_id.clone()], ..Default::default() };
            let images = pages!(client.compute().describe_images(request).images, None).unwrap_or_default();
            let request = DeregisterImageRequest { image_id, ..Default::default() };
            note(call!(client.compute().deregister_image(request)).map(drop));
            let devices = images.into_iter().flat_map(|image| image.block_device_mappings).filter_map(|mapping| mapping.device);
            let snapshots = devices.filter_map(|device| match device {
                Device::Ebs(ebs) => ebs.snapshot_id,
                Device::VirtualName(_) | Device::NoDevice(_) => None,
            });
            for snapshot_id in snapshots {
                let request = DeleteSnapshotRequest { snapshot_id, ..Default::default() };
                note(call!(client.compute().delete_snapshot(request)).map(drop));
            }
        }
        if let Some(group_id) = self.group.take() {
            let request = DeleteSecurityGroupRequest { group_id, ..Default::default() };
            note(call!(client.security().delete_security_group(request)).map(drop));
        }
        for key_name in std::mem::take(&mut self.keys) {
            let request = DeleteKeyPairRequest { key_name, ..Default::default() };
            note(call!(client.security().delete_key_pair(request)).map(drop));
        }
        outcome?;
        self.prove("instances, address, image, snapshots, group and keys are gone".to_owned())
    }
}
