/* Tries to reach the network of the host, a port of which is the argument. */
static int dial(const char *host, int port) {
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    inet_pton(AF_INET, host, &to.sin_addr);
    return connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to);
}
int main(int count, char **arguments) {
    SAY("raw", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    SAY("packet", socket(AF_PACKET, SOCK_RAW, 0));
    SAY("host", dial("127.0.0.1", atoi(arguments[1])));
    SAY("outside", dial("192.0.2.1", 80));
    SAY("private", dial("10.0.0.1", 80));
    struct ifreq request = { .ifr_name = "lo" };
    SAY("down", ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &request));
    SAY("tun", open("/dev/net/tun", O_RDWR));
}
