//! Redis fails over by name: its name leads to another server, and connections to the former primary stay.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::instance::{Instance, Memory, eventually, settings};
use crate::published::Published;
use crate::support::{NOBODYS_PORT, Redis};

const ETAG: &str = "posthog:1:cache/teams/3/feature_flags/flags_with_cohorts.json:etag";

/// A port that stands for a name. Connections stay where it led to when they were made.
struct Name {
    port: u16,
    target: Arc<AtomicU16>,
}

impl Name {
    fn of(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(redis.port));
        let leads_to = Arc::clone(&target);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::SeqCst)));
                if let Ok(server) = server {
                    relay(client.try_clone().unwrap(), server.try_clone().unwrap());
                    relay(server, client);
                }
            }
        });
        Self { port, target }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn move_to(&self, redis: &Redis) {
        self.target.store(redis.port, Ordering::SeqCst);
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Another server with the same content.
fn replica_of(primary: &mut Redis) -> Redis {
    let mut replica = Redis::start();
    let () = replica.command("REPLICAOF", &["127.0.0.1", &primary.port.to_string()]);
    eventually("the replica", || {
        let info: String = replica.command("INFO", &["replication"]);
        info.contains("master_link_status:up")
    });
    replica
}

/// The replica becomes the primary; the former one is a replica that hears nothing any more.
fn fail_over(former: &mut Redis, successor: &mut Redis, name: &Name) {
    let () = successor.command("REPLICAOF", &["NO", "ONE"]);
    let () = former.command("REPLICAOF", &["127.0.0.1", &NOBODYS_PORT.to_string()]);
    name.move_to(successor);
}

#[test]
fn the_publisher_follows_the_name_and_says_nothing_about_etags_of_the_former_primary() {
    let mut former = Redis::start();
    let name = Name::of(&former);
    let source = Memory::with_teams(5);
    let instance = Instance::start(settings(&name.url()), &source);
    instance.wait_until_live();
    let mut successor = replica_of(&mut former);
    let lineages = instance.status.figures().lineages;
    fail_over(&mut former, &mut successor, &name);
    // Known only to the new primary.
    let () = successor.command("SET", &[ETAG, "abc"]);
    instance.wait("READONLY", |figures| figures.errors.redis > 0);
    instance.wait("the new ETag", |figures| {
        figures.active && figures.etag_changes == 1
    });
    let frozen = Published::read(&mut former).last_id();
    eventually("watermarks in the new primary", || {
        Published::read(&mut successor).last_id().millis > frozen.millis + 500
    });
    assert_eq!(Published::read(&mut former).last_id(), frozen);
    // What was replicated is continued.
    assert_eq!(instance.status.figures().lineages, lineages);
}

#[test]
fn etags_are_not_read_from_a_former_primary_of_the_definitions() {
    let redis = Redis::start();
    let mut former = Redis::start();
    let name = Name::of(&former);
    let source = Memory::with_teams(5);
    let here = settings(&redis.url());
    let instance = Instance::start_with_definitions(here, &name.url(), &source);
    instance.wait_until_live();
    let mut successor = replica_of(&mut former);
    fail_over(&mut former, &mut successor, &name);
    let () = successor.command("SET", &[ETAG, "abc"]);
    instance.wait("a failed sweep", |figures| {
        figures.errors.definitions_redis > 0
    });
    instance.wait("the new ETag", |figures| figures.etag_changes == 1);
}

#[test]
fn a_replica_that_is_one_from_the_beginning_is_read() {
    let redis = Redis::start();
    let mut primary = Redis::start();
    let replica = replica_of(&mut primary);
    let source = Memory::with_teams(5);
    let here = settings(&redis.url());
    let instance = Instance::start_with_definitions(here, &replica.url(), &source);
    instance.wait_until_live();
    let () = primary.command("SET", &[ETAG, "abc"]);
    let figures = instance.wait("the new ETag", |figures| figures.etag_changes == 1);
    assert_eq!(figures.errors.definitions_redis, 0);
}

/// It says of itself that it is a primary, as one that was cut off does.
#[test]
fn a_name_that_leads_elsewhere_is_followed_within_half_a_minute() {
    let redis = Redis::start();
    let former = Redis::start();
    let mut successor = Redis::start();
    let name = Name::of(&former);
    let source = Memory::with_teams(5);
    let here = settings(&redis.url());
    let instance = Instance::start_with_definitions(here, &name.url(), &source);
    instance.wait_until_live();
    name.move_to(&successor);
    let () = successor.command("SET", &[ETAG, "abc"]);
    let figures = instance.wait("the new ETag", |figures| figures.etag_changes == 1);
    assert_eq!(figures.errors.definitions_redis, 0);
}
