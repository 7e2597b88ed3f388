/* An SMTP server that accepts, discards and counts every mail. It offers what Postfix's smtp-sink lacks:
 * CHUNKING and BINARYMIME (RFC 3030), and STARTTLS (TLS 1.3 only) if it has a certificate.
 *
 *     sink [CERTIFICATE.pem]
 *
 * It listens on a free loopback port and prints it; at the end of standard input it says what it accepted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
static SSL_CTX *context;
#else
typedef void SSL;
static void *context;
#endif

enum { CALLERS = 256, BUFFER = 1 << 18, REPLIES = 1 << 16 };
enum mode { COMMAND, DATA, BDAT };

struct caller {
    int fd, quit, handshake, last;
    enum mode mode;
    SSL *tls;
    long recipients, chunk;
    size_t have, said;
    char in[BUFFER], out[REPLIES];
};

static struct caller *callers[CALLERS];
static long mails, recipients;
static long long octets;

static void die(const char *what) { perror(what); exit(1); }

static ssize_t receive(struct caller *caller, char *to, size_t size)
{
#ifdef WITH_TLS
    if (caller->tls) {
        int got = SSL_read(caller->tls, to, size);
        if (got > 0) return got;
        errno = EAGAIN;
        return SSL_get_error(caller->tls, got) == SSL_ERROR_WANT_READ ? -1 : 0;
    }
#endif
    return read(caller->fd, to, size);
}

static void flush(struct caller *caller)
{
    for (size_t at = 0; at < caller->said;) {
        ssize_t sent;
#ifdef WITH_TLS
        if (caller->tls) sent = SSL_write(caller->tls, caller->out + at, caller->said - at);
        else
#endif
            sent = send(caller->fd, caller->out + at, caller->said - at, MSG_NOSIGNAL);
        if (sent > 0) { at += sent; continue; }
        struct pollfd full = {.fd = caller->fd, .events = POLLOUT};
        if ((!caller->tls && errno != EAGAIN) || poll(&full, 1, 30000) != 1 || full.revents & (POLLERR | POLLHUP)) {
            caller->quit = 1;
            break;
        }
    }
    caller->said = 0;
}

static void say(struct caller *caller, const char *reply)
{
    size_t size = strlen(reply);
    if (caller->said + size > REPLIES) flush(caller);
    memcpy(caller->out + caller->said, reply, size), caller->said += size;
}

static void accepted(struct caller *caller)
{
    mails++, recipients += caller->recipients, caller->recipients = 0, caller->mode = COMMAND;
    say(caller, "250 2.0.0 Ok\r\n");
}

static void command(struct caller *caller, const char *line)
{
    if (!strncasecmp(line, "EHLO", 4) || !strncasecmp(line, "HELO", 4)) {
        say(caller, "250-sink.example\r\n250-SIZE 10737418240\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n");
        if (context && !caller->tls) say(caller, "250-STARTTLS\r\n");
        say(caller, "250-ENHANCEDSTATUSCODES\r\n250 BINARYMIME\r\n");
    } else if (!strncasecmp(line, "MAIL", 4)) {
        caller->recipients = 0, say(caller, "250 2.1.0 Ok\r\n");
    } else if (!strncasecmp(line, "RCPT", 4)) {
        caller->recipients++, say(caller, "250 2.1.5 Ok\r\n");
    } else if (!strncasecmp(line, "DATA", 4)) {
        if (caller->recipients) caller->mode = DATA, say(caller, "354 End data with <CR><LF>.<CR><LF>\r\n");
        else say(caller, "503 5.5.1 Nobody to deliver it to\r\n");
    } else if (!strncasecmp(line, "BDAT ", 5)) {
        caller->chunk = atol(line + 5), caller->last = strcasestr(line, "LAST") != NULL, caller->mode = BDAT;
    } else if (!strncasecmp(line, "STARTTLS", 8) && context && !caller->tls) {
        caller->handshake = 1, say(caller, "220 2.0.0 Go ahead\r\n");
    } else if (!strncasecmp(line, "QUIT", 4)) {
        caller->quit = 1, say(caller, "221 2.0.0 Bye\r\n");
    } else if (!strncasecmp(line, "RSET", 4) || !strncasecmp(line, "NOOP", 4)) {
        say(caller, "250 2.0.0 Ok\r\n");
    } else {
        say(caller, "502 5.5.2 Not here\r\n");
    }
}

/* Process all complete commands and messages in the buffer, and keep the rest. */
static void digest(struct caller *caller)
{
    size_t at = 0;
    while (at < caller->have && !caller->quit && !caller->handshake) {
        char *from = caller->in + at;
        size_t left = caller->have - at;
        if (caller->mode == BDAT) {
            size_t taken = (long)left < caller->chunk ? left : (size_t)caller->chunk;
            at += taken, octets += taken, caller->chunk -= taken;
        } else if (caller->mode == DATA) {
            /* The line break before the message is still in the buffer, so that a dot in the first line ends it too. */
            char *end = memmem(from, left, "\r\n.\r\n", 5);
            if (!end) {
                size_t passed = left > 4 ? left - 4 : 0;
                at += passed, octets += passed;
                break;
            }
            at += end + 5 - from, octets += end - from;
            accepted(caller);
        } else {
            char *end = memmem(from, left, "\r\n", 2);
            if (!end) break;
            *end = 0, command(caller, from), *end = '\r';
            at += end + (caller->mode == DATA ? 0 : 2) - from;
        }
        if (caller->mode == BDAT && caller->chunk == 0) {
            if (caller->last) accepted(caller);
            else caller->mode = COMMAND, say(caller, "250 2.0.0 Chunk taken\r\n");
        }
    }
    memmove(caller->in, caller->in + at, caller->have -= at);
}

static void start_tls(struct caller *caller)
{
    caller->handshake = 0, caller->have = 0;
#ifdef WITH_TLS
    fcntl(caller->fd, F_SETFL, 0); /* one handshake at a time is enough here */
    caller->tls = SSL_new(context);
    SSL_set_fd(caller->tls, caller->fd);
    if (SSL_accept(caller->tls) != 1) caller->quit = 1;
    fcntl(caller->fd, F_SETFL, O_NONBLOCK);
#endif
}

/* Read and process all input of a client; 0 when it has closed. */
static int hear(struct caller *caller)
{
    for (;;) {
        ssize_t got = receive(caller, caller->in + caller->have, BUFFER - caller->have);
        if (got < 0 && errno == EAGAIN) return 1;
        if (got <= 0) return 0;
        caller->have += got;
        digest(caller);
        flush(caller);
        if (caller->handshake) start_tls(caller);
        if (caller->quit || caller->have == BUFFER) return 0;
        if (!caller->tls) return 1;
    }
}

static void hang_up(int i)
{
#ifdef WITH_TLS
    if (callers[i]->tls) SSL_free(callers[i]->tls);
#endif
    close(callers[i]->fd), free(callers[i]), callers[i] = NULL;
}

int main(int count, char **words)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    signal(SIGPIPE, SIG_IGN);
    if (count > 1) {
#ifdef WITH_TLS
        context = SSL_CTX_new(TLS_server_method());
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        if (SSL_CTX_use_certificate_chain_file(context, words[1]) != 1
            || SSL_CTX_use_PrivateKey_file(context, words[1], SSL_FILETYPE_PEM) != 1)
            return fprintf(stderr, "%s holds no certificate and key\n", words[1]), 1;
#else
        return fprintf(stderr, "made without TLS, so %s is of no use\n", words[1]), 1;
#endif
    }
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 128)) die("listen");
    getsockname(listener, (void *)&here, &size);
    printf("%d\n", ntohs(here.sin_port)), fflush(stdout);

    for (;;) {
        struct pollfd fds[2 + CALLERS] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
        int numbers[2 + CALLERS], used = 2, spare = -1;
        for (int i = 0; i < CALLERS; i++) {
            if (!callers[i]) spare = i;
            else numbers[used] = i, fds[used++] = (struct pollfd){.fd = callers[i]->fd, .events = POLLIN};
        }
        if (spare < 0) fds[1].fd = -1;
        if (poll(fds, used, -1) < 0) die("poll");
        if (fds[0].revents) break;
        for (int i = 2; i < used; i++)
            if (fds[i].revents && !hear(callers[numbers[i]])) hang_up(numbers[i]);
        if (!fds[1].revents) continue;
        struct caller *caller = callers[spare] = calloc(1, sizeof *caller);
        if (!caller) die("calloc");
        if ((caller->fd = accept(listener, NULL, NULL)) < 0) die("accept");
        fcntl(caller->fd, F_SETFL, O_NONBLOCK);
        setsockopt(caller->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        say(caller, "220 sink.example ESMTP\r\n");
        flush(caller);
    }
    printf("{\"mails\": %ld, \"recipients\": %ld, \"octets\": %lld}\n", mails, recipients, octets);
    return 0;
}
