//! Levels of isolation that are raised while a sample runs.

use std::time::Duration;

use bellwether_sandbox::cage::Ending;
use bellwether_sandbox::isolation::{WriteDenial, cut_network, deny_writes};

use crate::runs::{PATIENCE, compiled, start};

#[test]
fn level_1_cuts_connections_that_stand_and_those_to_come() {
    let Some(plan) = compiled(
        "level_1_cuts_connections_that_stand_and_those_to_come",
        r#"int main(void) {
            struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(4000), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
            int listener = socket(AF_INET, SOCK_STREAM, 0);
            bind(listener, (void *)&here, sizeof here);
            listen(listener, 8);
            int dialled = socket(AF_INET, SOCK_STREAM, 0);
            SAY("before", connect(dialled, (void *)&here, sizeof here));
            int accepted = accept(listener, 0, 0);
            write(dialled, "x", 1);
            char byte;
            SAY("read", read(accepted, &byte, 1) == 1 ? 0 : -1);
            while (access("/tmp/cut", F_OK)) {
                struct ifreq request = { .ifr_name = "lo" };
                ioctl(listener, SIOCGIFFLAGS, &request);
                if (!(request.ifr_flags & IFF_UP)) break;
                usleep(1000);
            }
            write(dialled, "y", 1);
            struct pollfd polled = { accepted, POLLIN };
            TELL("arrived", poll(&polled, 1, 300));
            int again = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            int refused = connect(again, (void *)&here, sizeof here) < 0 && errno != EINPROGRESS;
            struct pollfd connected = { again, POLLOUT };
            TELL("after", !refused && poll(&connected, 1, 300) > 0 && !(connected.revents & POLLERR));
        }"#,
        &[],
    ) else {
        return;
    };
    let mut running = start(plan);
    let before = running.read_until("read ok\n");
    assert!(before.starts_with("before ok\n"), "{before}");
    cut_network(&running.enclosure).unwrap();
    // Once more is as good as once.
    cut_network(&running.enclosure).unwrap();
    let (ending, text) = running.finish();
    assert_eq!(ending, Ending::Code(0));
    assert_eq!(text, "arrived 0\nafter 0\n");
}

#[test]
fn level_2_is_busy_while_a_file_is_open_for_writing_and_then_holds() {
    let Some(plan) = compiled(
        "level_2_is_busy_while_a_file_is_open_for_writing_and_then_holds",
        r#"static volatile int told;
        static void tell(int signal) { told = 1; }
        int main(void) {
            signal(SIGUSR1, tell);
            int file = open("/home/user/open", O_CREAT | O_RDWR, 0644);
            ftruncate(file, 4096);
            char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            close(file);
            puts("open"); fflush(stdout);
            while (!told) usleep(1000);
            told = 0;
            page[0] = 1;
            munmap(page, 4096);
            puts("closed"); fflush(stdout);
            while (!told) usleep(1000);
            SAY("home", open("/home/user/new", O_CREAT | O_WRONLY, 0644));
            SAY("unlink", unlink("/home/user/open"));
            SAY("rename", rename("/home/user/open", "/home/user/other"));
            SAY("crontab", open("/var/spool/cron/crontabs/user", O_CREAT | O_WRONLY, 0600));
            SAY("log", open("/var/log/x", O_CREAT | O_WRONLY, 0600));
            SAY("read", open("/home/user/open", O_RDONLY));
            SAY("tmp", open("/tmp/new", O_CREAT | O_WRONLY, 0644));
        }"#,
        &[],
    ) else {
        return;
    };
    let mut running = start(plan);
    let sample = *running.cgroup.processes().unwrap_or_default().last().unwrap_or(&0);
    let Some(sample) = rustix::process::Pid::from_raw(sample) else {
        eprintln!(
            "skipped level_2_is_busy_while_a_file_is_open_for_writing_and_then_holds: no control group lists the sample"
        );
        return;
    };
    let tell = || rustix::process::kill_process(sample, rustix::process::Signal::USR1).unwrap();
    running.read_until("open\n");
    assert_eq!(deny_writes(&running.enclosure, PATIENCE).unwrap(), WriteDenial::Busy);
    tell();
    running.read_until("closed\n");
    assert_eq!(deny_writes(&running.enclosure, PATIENCE).unwrap(), WriteDenial::Done);
    assert_eq!(deny_writes(&running.enclosure, Duration::from_secs(1)).unwrap(), WriteDenial::Done);
    tell();
    let (ending, text) = running.finish();
    assert_eq!(ending, Ending::Code(0));
    let expected = "home EROFS\nunlink EROFS\nrename EROFS\ncrontab EROFS\nlog EROFS\nread ok\ntmp ok\n";
    assert_eq!(text, expected);
}
