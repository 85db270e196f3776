/* Connects to sockets of the host, by name and by path, and opens a FIFO of it. */
int main(int count, char **arguments) {
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    struct stat facts;
    SAY("seen", stat(arguments[2], &facts) || !S_ISSOCK(facts.st_mode) ? -1 : 0);
    strcpy(to.sun_path + 1, arguments[1]);
    int length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(arguments[1]);
    SAY("abstract", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, length));
    strcpy(to.sun_path, arguments[2]);
    SAY("path", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, sizeof to));
    SAY("fifo", open(arguments[3], O_WRONLY | O_NONBLOCK));
}
