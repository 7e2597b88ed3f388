/* The fastest that a client without CHUNKING can be: a message, its final dot and the envelope of the next one in one
 * write, over several connections by poll. The text is ready made, and only its numbers differ. A limit, not a peer.
 *
 *     pipeliner PORT CONNECTIONS MAILS OCTETS
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, ROOM = 1 << 17 };

static long mails, begun, sent;
static size_t octets;
static char *text;

/* The replies: greeting, EHLO, then repeatedly 250, 250, 354 for an envelope and 250 for a message. */
static struct line { int fd, step; long mail; size_t have; char in[8192]; } lines[MOST];

static void die(const char *what) { perror(what); exit(1); }

static int envelope(struct line *line, char *to)
{
    if (begun == mails) return line->mail = -1, sprintf(to, "QUIT\r\n");
    line->mail = begun++;
    return sprintf(to, "MAIL FROM:<etl@corp.example>\r\nRCPT TO:<user%ld@corp.example>\r\nDATA\r\n", line->mail);
}

/* Send what follows a reply; 0 after QUIT. */
static int answer(struct line *line, const char *reply)
{
    static char out[ROOM];
    int size = 0;
    if (reply[0] != (line->step == 4 ? '3' : '2')) fprintf(stderr, "step %d: %.60s\n", line->step, reply), exit(1);
    if (line->mail < 0 && line->step == 3) return 0;
    switch (line->step++) {
    case 0: size = sprintf(out, "EHLO client.example\r\n"); break;
    case 1: size = envelope(line, out), line->step = line->mail < 0 ? 3 : 2; break;
    case 4:
        size = sprintf(out, "From: etl@corp.example\r\nTo: user%ld@corp.example\r\nSubject: Mail %ld\r\n"
            "Date: Mon, 05 Jan 2026 08:00:00 +0000\r\nMessage-ID: <%ld@corp.example>\r\n\r\n",
            line->mail, line->mail, line->mail);
        memcpy(out + size, text, octets), size += octets;
        size += sprintf(out + size, "\r\n.\r\n");
        size += envelope(line, out + size);
        break;
    case 5: sent++, line->step = line->mail < 0 ? 3 : 2; break;
    }
    return size == 0 || write(line->fd, out, size) == size ? 1 : (die("write"), 0);
}

static int hear(struct line *line)
{
    ssize_t got = read(line->fd, line->in + line->have, sizeof line->in - line->have);
    if (got <= 0) die("read");
    line->have += got;
    char *at = line->in, *end;
    while ((end = memchr(at, '\n', line->in + line->have - at))) {
        if (end - at > 3 && at[3] != '-' && !answer(line, at)) return 0;
        at = end + 1;
    }
    memmove(line->in, at, line->have -= at - line->in);
    return 1;
}

int main(int count, char **words)
{
    if (count != 5) return fprintf(stderr, "usage: pipeliner PORT CONNECTIONS MAILS OCTETS\n"), 2;
    int connections = atoi(words[2]), open = connections, on = 1;
    mails = atol(words[3]), octets = atol(words[4]), text = malloc(octets + 1);
    if (connections > MOST || octets > ROOM - 1024 || !text) return fprintf(stderr, "too many\n"), 2;
    for (size_t i = 0; i < octets; i++) text[i] = i % 72 == 70 ? '\r' : i % 72 == 71 ? '\n' : 'x';
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    there.sin_port = htons(atoi(words[1]));
    struct pollfd fds[MOST];
    struct timespec before, after;
    struct rusage used;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (int i = 0; i < connections; i++) {
        lines[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(lines[i].fd, (void *)&there, sizeof there)) die("connect");
        setsockopt(lines[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fds[i] = (struct pollfd){.fd = lines[i].fd, .events = POLLIN};
    }
    while (open) {
        if (poll(fds, connections, -1) < 0) die("poll");
        for (int i = 0; i < connections; i++)
            if (fds[i].revents && !hear(&lines[i])) close(lines[i].fd), fds[i].fd = -1, open--;
    }
    clock_gettime(CLOCK_MONOTONIC, &after);
    getrusage(RUSAGE_SELF, &used);
    printf("{\"sent\": %ld, \"wall\": %.9f, \"cpu\": %.6f, \"peak\": null}\n", sent,
        after.tv_sec - before.tv_sec + (after.tv_nsec - before.tv_nsec) * 1e-9,
        used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6);
    return 0;
}
