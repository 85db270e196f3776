//! The decoy network: any address answers, every name has an address, what is said is noted, and a cut ends it.

use bellwether_sandbox::abilities::Abilities;
use bellwether_sandbox::cage::{Ending, Plan};
use bellwether_sandbox::isolation::cut_network;
use bellwether_sandbox::network::{Contact, Network, Protocol};

use crate::runs::{compiled, start};

const DIAL: &str = r#"
#include <netdb.h>
static int dial(const char *host, const char *port) {
    struct addrinfo want = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
    int error = getaddrinfo(host, port, &want, &found);
    if (error) { printf("%s\n", gai_strerror(error)); exit(1); }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen) < 0) return -1;
    return fd;
}
static long talk(int fd, const char *said, long bytes, char *heard, long room) {
    write(fd, said, bytes);
    long total = 0, part;
    while (total < room && (part = read(fd, heard + total, room - total)) > 0) total += part;
    return total;
}
"#;

/// A plan with a decoy network; none, and a word on it, where this host has no TUN device for us.
fn decoy(test: &str, source: &str) -> Option<Plan> {
    let mut plan = compiled(test, &format!("{DIAL}{source}"), &[])?;
    let tun = Abilities::of_this_host().abilities.into_iter().find(|ability| ability.name == "TUN").unwrap();
    if !tun.here {
        eprintln!("skipped {test}: {}", tun.found);
        return None;
    }
    plan.network = Network::Decoy;
    Some(plan)
}

#[test]
fn any_address_answers_and_every_name_has_one() {
    const TEST: &str = "any_address_answers_and_every_name_has_one";
    let Some(plan) = decoy(
        TEST,
        r#"int main(void) {
            static char heard[200000];
            const char *page = "GET /big=150000 HTTP/1.0\r\nHost: files.example\r\n\r\n";
            int web = dial("files.example", "80");
            SAY("name", web);
            TELL("page", talk(web, page, strlen(page), heard, sizeof heard) > 150000);
            TELL("status", !strncmp(heard, "HTTP/1.0 200 OK", 15));
            int bare = dial("203.0.113.9", "4444");
            SAY("address", bare);
            write(bare, "hello\n", 6);
            TELL("line", read(bare, heard, 6) > 3 && !strncmp(heard, "OK ", 3));
            close(bare);
            int up = dial("10.1.2.3", "8080");
            static char body[100000];
            dprintf(up, "PUT %d\n", (int)sizeof body);
            TELL("upload", talk(up, body, sizeof body, heard, 3) == 3 && !strncmp(heard, "OK\n", 3));
            SAY("again", dial("files.example", "81"));
            SAY("other", dial("OTHER.example", "80"));
            struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(123) };
            inet_pton(AF_INET, "198.51.100.1", &to.sin_addr);
            int packets = socket(AF_INET, SOCK_DGRAM, 0);
            SAY("packet", sendto(packets, "one", 3, 0, (void *)&to, sizeof to));
            SAY("packet", sendto(packets, "three", 5, 0, (void *)&to, sizeof to));
            for (int at = 0; at < 200; at++) {
                int fd = dial("203.0.113.77", "25");
                if (fd < 0) { SAY("many", -1); break; }
                write(fd, "x\n", 2);
                if (read(fd, heard, 3) != 3) SAY("many", -1);
                close(fd);
            }
            usleep(100000);
        }"#,
    ) else {
        return;
    };
    let running = start(plan);
    let ending = running.enclosure.wait(crate::runs::PATIENCE).unwrap();
    let traffic = running.enclosure.traffic().unwrap();
    let (_, text) = running.finish();
    let expected =
        "name ok\npage 1\nstatus 1\naddress ok\nline 1\nupload 1\nagain ok\nother ok\npacket ok\npacket ok\n";
    assert_eq!((ending, text.as_str()), (Some(Ending::Code(0)), expected));
    let names: Vec<&str> = traffic.names.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["files.example", "other.example"]);
    let contact = |to: &str| -> &Contact { traffic.contacts.iter().find(|one| one.to.to_string() == to).unwrap() };
    let web = contact(&format!("{}:80", traffic.names[0].address));
    assert!(web.first.starts_with(b"GET /big=150000 HTTP/1.0\r\n") && web.received_bytes > 150_000, "{web:?}");
    assert_eq!(
        (contact("203.0.113.9:4444").first.as_slice(), contact("203.0.113.9:4444").sent_bytes),
        (&b"hello\n"[..], 6)
    );
    assert_eq!(contact("10.1.2.3:8080").sent_bytes, 100_011);
    let packets = contact("198.51.100.1:123");
    assert_eq!((packets.protocol, packets.first.as_slice()), (Protocol::Udp, &b"onethree"[..]));
    let many = traffic.contacts.iter().filter(|one| one.to.port() == 25).count();
    assert_eq!((many, traffic.left_out), (200, 0));
}

#[test]
fn a_cut_ends_what_stands_and_what_is_to_come() {
    const TEST: &str = "a_cut_ends_what_stands_and_what_is_to_come";
    let Some(plan) = decoy(
        TEST,
        r#"int main(void) {
            char heard[64];
            int fd = dial("203.0.113.9", "4444");
            write(fd, "before\n", 7);
            read(fd, heard, sizeof heard);
            puts("before"); fflush(stdout);
            struct ifreq request = { .ifr_name = "eth0" };
            do usleep(1000); while (!ioctl(fd, SIOCGIFFLAGS, &request));
            write(fd, "after\n", 6);
            struct pollfd polled = { fd, POLLIN };
            TELL("arrived", poll(&polled, 1, 200) > 0 && !(polled.revents & POLLERR));
            SAY("later", dial("203.0.113.9", "4444"));
            SAY("own", dial("127.0.0.1", "4444"));
            SAY("name", gethostbyname("files.example") ? 0 : -1);
        }"#,
    ) else {
        return;
    };
    let mut running = start(plan);
    running.read_until("before\n");
    cut_network(&running.enclosure).unwrap();
    cut_network(&running.enclosure).unwrap();
    let traffic = running.enclosure.traffic().unwrap();
    let (ending, text) = running.finish();
    assert_eq!(ending, Ending::Code(0));
    assert!(text.starts_with("arrived 0\nlater ENETUNREACH\nown ENETUNREACH\nname "), "{text}");
    assert!(!text.contains("name ok"), "{text}");
    assert_eq!(traffic.contacts.len(), 1, "{traffic:?}");
    assert_eq!(traffic.contacts[0].first, b"before\n");
}

#[test]
fn ports_of_the_plan_are_answered_on_the_samples_own_addresses() {
    const TEST: &str = "ports_of_the_plan_are_answered_on_the_samples_own_addresses";
    let source = r#"int main(void) {
        static char heard[64];
        for (int at = 0; at < 3; at++) {
            const char *hosts[] = { "127.0.0.1", "127.0.3.4", "127.0.0.1" }, *ports[] = { "4001", "4002", "80" };
            int fd = dial(hosts[at], ports[at]);
            SAY("dial", fd);
            long heard_bytes = talk(fd, "GET / HTTP/1.0\r\n\r\n", 18, heard, sizeof heard);
            TELL("heard", heard_bytes);
        }
        SAY("closed", dial("127.0.0.1", "4003"));
    }"#;
    let Some(mut plan) = compiled(TEST, &format!("{DIAL}{source}"), &[]) else { return };
    plan.ports = vec![4001, 4002, 80];
    let running = start(plan);
    running.enclosure.wait(crate::runs::PATIENCE).unwrap();
    let traffic = running.enclosure.traffic().unwrap();
    let (ending, text) = running.finish();
    let expected = format!("{}closed ECONNREFUSED\n", "dial ok\nheard 49\n".repeat(3));
    assert_eq!((ending, text), (Ending::Code(0), expected));
    let to: Vec<String> = traffic.contacts.iter().map(|one| one.to.to_string()).collect();
    assert_eq!(to, ["127.0.0.1:4001", "127.0.3.4:4002", "127.0.0.1:80"]);
    let mut plan = crate::runs::shell("true");
    plan.ports = vec![1; 17];
    assert!(bellwether_sandbox::cage::Cage::start(&plan).unwrap_err().to_string().contains("give at most 16"));
    // A port can be had once.
    plan.ports = vec![4001, 4001];
    let failure = bellwether_sandbox::cage::Cage::start(&plan).unwrap_err().to_string();
    assert!(failure.contains("listen on a port of the plan"), "{failure}");
}
