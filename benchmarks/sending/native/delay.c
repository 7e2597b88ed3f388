/* A proxy with a round-trip time: what is received on one side is sent on the other half a round trip later.
 *
 *     delay MILLISECONDS PORT
 *
 * It listens on a free loopback port, prints it, and connects each caller to PORT. Nothing is serialised: every chunk
 * has a moment of its own. The handshake of TCP takes its round trip too: the server sees the caller one and a half
 * round trips after connect(), so that its greeting arrives after two. At the end of standard input it says how many
 * lines there were and how often a caller spoke after its server had spoken (turns), which is what a round trip costs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINES = 256, BLOCK = 65536, HELD = 8 << 20 };

struct chunk { struct chunk *next; double due; size_t size, at; char octets[]; };
struct way { int from, to; struct chunk *first, **last; size_t held; int ended; };
struct line { struct way up, down; double opens; int server_spoke; };

static struct line *lines[LINES];
static long opened, turns;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) { perror(what); exit(1); }

static int ready(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fcntl(fd, F_SETFL, O_NONBLOCK), fd;
}

static void hold(struct way *way, const char *octets, size_t size, double due)
{
    struct chunk *chunk = malloc(sizeof *chunk + size);
    if (!chunk) die("malloc");
    *chunk = (struct chunk){.due = due, .size = size};
    memcpy(chunk->octets, octets, size);
    *way->last = chunk, way->last = &chunk->next, way->held += size;
}

static void hang_up(int i)
{
    struct line *line = lines[i];
    close(line->up.from);
    if (line->up.to >= 0) close(line->up.to);
    for (struct way *way = &line->up; way; way = way == &line->up ? &line->down : NULL)
        for (struct chunk *chunk = way->first, *next; chunk; chunk = next) next = chunk->next, free(chunk);
    free(line), lines[i] = NULL;
}

/* Read a chunk and hold it for half a round trip. */
static void take(struct line *line, struct way *way, double half)
{
    static char block[BLOCK];
    ssize_t size = read(way->from, block, sizeof block);
    if (size < 0) return; /* poll reports a broken connection */
    if (size == 0) way->ended = 1; /* an empty chunk closes the connection when it is due */
    else if (way == &line->down) line->server_spoke = 1;
    else if (line->server_spoke) line->server_spoke = 0, turns++;
    hold(way, block, size, now() + half);
}

/* Write the chunks that are due; 0 at the end of this direction. */
static int give(struct way *way, double moment)
{
    for (struct chunk *chunk; (chunk = way->first) && chunk->due <= moment;) {
        if (chunk->size == 0) return 0;
        ssize_t size = send(way->to, chunk->octets + chunk->at, chunk->size - chunk->at, MSG_NOSIGNAL);
        if (size < 0) return 1; /* full for now; poll reports a broken connection */
        way->held -= size, chunk->at += size;
        if (chunk->at < chunk->size) return 1;
        if (!(way->first = chunk->next)) way->last = &way->first;
        free(chunk);
    }
    return 1;
}

int main(int count, char **words)
{
    if (count != 3) return fprintf(stderr, "usage: delay MILLISECONDS PORT\n"), 2;
    double half = atof(words[1]) / 2000;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, there = here;
    socklen_t size = sizeof here;
    there.sin_port = htons(atoi(words[2]));
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 128)) die("listen");
    getsockname(listener, (void *)&here, &size);
    printf("%d\n", ntohs(here.sin_port)), fflush(stdout);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL);

    for (;;) {
        struct pollfd fds[2 + 2 * LINES] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
        double moment = now(), next = moment + 3600;
        for (int i = 0; i < LINES; i++) {
            struct pollfd *near = &fds[2 + 2 * i], *far = near + 1;
            struct line *line = lines[i];
            near->fd = far->fd = -1;
            if (!line) continue;
            if (line->up.to < 0) { /* its SYN is still on the way */
                if (line->opens < next) next = line->opens;
                continue;
            }
            struct { struct way *way; struct pollfd *from, *to; } ways[] = {
                {&line->up, near, far}, {&line->down, far, near}};
            for (int w = 0; w < 2; w++) {
                struct way *way = ways[w].way;
                if (!way->ended && way->held < HELD) ways[w].from->events |= POLLIN, ways[w].from->fd = way->from;
                if (!way->first) continue;
                if (way->first->due > moment) next = way->first->due < next ? way->first->due : next;
                else ways[w].to->events |= POLLOUT, ways[w].to->fd = way->to;
            }
        }
        double wait = next > moment ? next - moment : 0;
        struct timespec patience = {(time_t)wait, (long)((wait - (time_t)wait) * 1e9)};
        if (ppoll(fds, 2 + 2 * LINES, &patience, NULL) < 0) die("poll");
        if (fds[0].revents) break;
        moment = now();
        for (int i = 0; fds[1].revents && i < LINES; i++) {
            if (lines[i]) continue;
            struct line *line = lines[i] = calloc(1, sizeof *line);
            int caller = accept(listener, NULL, NULL);
            if (!line || caller < 0) die("accept");
            line->up.from = line->down.to = ready(caller), line->up.to = line->down.from = -1;
            line->up.last = &line->up.first, line->down.last = &line->down.first;
            line->opens = moment + 3 * half;
            opened++;
            break;
        }
        for (int i = 0; i < LINES; i++) {
            struct line *line = lines[i];
            if (!line) continue;
            if (line->up.to < 0) {
                if (line->opens > moment) continue;
                int server = socket(AF_INET, SOCK_STREAM, 0);
                if (connect(server, (void *)&there, sizeof there)) { close(server), hang_up(i); continue; }
                line->up.to = line->down.from = ready(server);
                continue;
            }
            int near = fds[2 + 2 * i].revents, far = fds[3 + 2 * i].revents;
            if (near & (POLLIN | POLLHUP) && !line->up.ended && line->up.held < HELD) take(line, &line->up, half);
            if (far & (POLLIN | POLLHUP) && !line->down.ended && line->down.held < HELD) take(line, &line->down, half);
            int up = give(&line->up, moment), down = give(&line->down, moment);
            /* A peer that closes has read all that it wants, so both directions end. */
            if ((near | far) & (POLLERR | POLLNVAL) || !up || !down) hang_up(i);
        }
    }
    printf("{\"lines\": %ld, \"turns\": %ld}\n", opened, turns);
    return 0;
}
