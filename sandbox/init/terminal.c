#include "sandbox/init/terminal.h"

#include "sandbox/base/buffer.h"
#include "sandbox/init/process.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>

/*
 * Theory of operation
 *
 * Two one-way relays, each with one bounded buffer: input pipe -> `in` -> master, and master -> `out` ->
 * output pipe. A side is waited for only if the buffer has room (reading) or content (writing), so a
 * reader that stops, on either side, stops the writer. When the input pipe ends, VEOF is written behind what
 * came through it. The master gives EIO when no process has the terminal open; that is the end of the output.
 *
 * After the process was reaped, what it left in the kernel's terminal buffer still goes out before its end is
 * told; DRAIN_MAX bounds that, because a grandchild may go on writing for ever.
 */

#define RELAY_MAX 65536u
#define RELAY_CHUNK 8192u
#define DRAIN_MAX (256u << 10)

struct terminal {
	struct process *process;
	struct source master;
	struct source input;  /* read end of the input pipe */
	struct source output; /* write end of the output pipe */
	struct buffer in;
	struct buffer out;
	bool send_eof;  /* the input pipe ended: VEOF follows `in` */
	bool hung_up;   /* nobody has the terminal open (now) */
	bool finishing; /* the process was reaped */
	size_t drained; /* bytes read since then */
};

/* Read what there is into the buffer. 1 = more may come, 0 = nothing now, or the buffer is full, -1 = the end. */
static int fill(int fd, struct buffer *buffer)
{
	size_t length = buffer_room(buffer) < RELAY_CHUNK ? buffer_room(buffer) : RELAY_CHUNK;
	int rc = 0;
	uint8_t *place = length ? buffer_reserve(buffer, length, &rc) : NULL;
	ssize_t n;

	if (!place)
		return 0;
	n = read(fd, place, length);
	if (n > 0) {
		buffer_commit(buffer, (size_t)n);
		return 1;
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

/* Write what the other side takes; -1 = it is gone. */
static int drain(int fd, struct buffer *buffer)
{
	while (buffer_length(buffer)) {
		ssize_t n = write(fd, buffer_data(buffer), buffer_length(buffer));

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -1;
		buffer_take(buffer, (size_t)n);
	}
	return 0;
}

static void write_eof(struct terminal *terminal)
{
	struct termios termios;
	char eof = 4;

	if (tcgetattr(terminal->master.fd, &termios) == 0 && termios.c_cc[VEOF])
		eof = (char)termios.c_cc[VEOF];
	if (write(terminal->master.fd, &eof, 1) == 1 || errno != EAGAIN)
		terminal->send_eof = false;
}

static void relay_input(struct init *init, struct terminal *terminal)
{
	if (terminal->input.fd >= 0 && fill(terminal->input.fd, &terminal->in) < 0) {
		source_close(init, &terminal->input);
		terminal->send_eof = true;
	}
	if (drain(terminal->master.fd, &terminal->in) < 0)
		buffer_take(&terminal->in, buffer_length(&terminal->in));
	if (terminal->send_eof && !buffer_length(&terminal->in))
		write_eof(terminal);
}

/* True when there is nothing left to relay for now. */
static bool relay_output(struct init *init, struct terminal *terminal)
{
	int rc;

	do {
		size_t before = buffer_length(&terminal->out);

		rc = fill(terminal->master.fd, &terminal->out);
		terminal->hung_up = rc < 0;
		if (terminal->finishing)
			terminal->drained += buffer_length(&terminal->out) - before;
		if (terminal->output.fd < 0 || drain(terminal->output.fd, &terminal->out) < 0)
			buffer_take(&terminal->out, buffer_length(&terminal->out));
		/* At the end it goes on until nothing is left: no event tells that the last bytes were read. */
	} while (terminal->finishing && rc > 0 && terminal->drained < DRAIN_MAX);
	return rc <= 0 && !buffer_length(&terminal->out);
}

static void await(struct init *init, struct terminal *terminal)
{
	bool eof_waits = terminal->send_eof;
	uint32_t master = (buffer_room(&terminal->out) ? (uint32_t)EPOLLIN : 0) |
			  (buffer_length(&terminal->in) || eof_waits ? (uint32_t)EPOLLOUT : 0);

	/* A hung-up master is always ready: look at it again only when there is input for it. */
	source_set(init, &terminal->master, terminal->hung_up ? 0 : master);
	source_set(init, &terminal->input, buffer_room(&terminal->in) && !terminal->hung_up ? EPOLLIN : 0);
	source_set(init, &terminal->output, buffer_length(&terminal->out) ? EPOLLOUT : 0);
}

/* The process may be freed by process_drained(), and the terminal with it: nothing may follow a call of this. */
static void relay(struct init *init, struct terminal *terminal)
{
	bool idle;

	relay_input(init, terminal);
	idle = relay_output(init, terminal);
	await(init, terminal);
	/* The last user of the terminal is gone, for good: the reader may know. */
	if (!terminal->process->pid && terminal->hung_up && idle)
		source_close(init, &terminal->output);
	if (terminal->finishing && (idle || terminal->drained >= DRAIN_MAX)) {
		terminal->finishing = false;
		process_drained(init, terminal->process);
	}
}

static void master_ready(struct init *init, struct source *source, uint32_t events)
{
	relay(init, CONTAINER_OF(source, struct terminal, master));
}

static void input_ready(struct init *init, struct source *source, uint32_t events)
{
	relay(init, CONTAINER_OF(source, struct terminal, input));
}

static void output_ready(struct init *init, struct source *source, uint32_t events)
{
	relay(init, CONTAINER_OF(source, struct terminal, output));
}

/* The slave belongs to whoever opens the master, by file system uid. */
static int open_master(uid_t uid)
{
	int old = setfsuid(uid);
	_cleanup_fd_ int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	int unlock = 0;
	struct stat st;

	setfsuid((uid_t)old);
	if (master < 0)
		return -errno;
	/* The sandbox's root may have put something else there. */
	if (fstat(master, &st) < 0 || !S_ISCHR(st.st_mode) || minor(st.st_rdev) != 2 || major(st.st_rdev) != 5)
		return -ENODEV;
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return -errno;
	return STEAL_FD(master);
}

static int open_pipes(struct terminal *terminal, int *ret_input, int *ret_output)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	terminal->input.fd = in[0];
	*ret_input = in[1];
	if (pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	terminal->output.fd = out[1];
	*ret_output = out[0];
	return 0;
}

static int fill_in(struct init *init, struct terminal *terminal, int *ret_slave, int *ret_input, int *ret_output)
{
	int rc = open_pipes(terminal, ret_input, ret_output);

	if (rc < 0)
		return rc;
	*ret_slave = ioctl(terminal->master.fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*ret_slave < 0)
		return -errno;
	rc = source_add(init, &terminal->master, terminal->master.fd, EPOLLIN, master_ready);
	if (rc == 0)
		rc = source_add(init, &terminal->input, terminal->input.fd, EPOLLIN, input_ready);
	if (rc == 0)
		rc = source_add(init, &terminal->output, terminal->output.fd, 0, output_ready);
	return rc;
}

int terminal_open(struct init *init, struct process *process, uid_t uid, unsigned int columns, unsigned int rows,
		  struct terminal **ret_terminal, int *ret_slave, int *ret_input, int *ret_output)
{
	struct terminal *terminal = calloc(1, sizeof(*terminal));
	int master = open_master(uid);
	int rc;

	if (!terminal || master < 0) {
		free(terminal);
		if (master >= 0)
			close(master);
		return master < 0 ? master : -ENOMEM;
	}
	*terminal = (struct terminal){.process = process,
				      .master.fd = master,
				      .input.fd = -1,
				      .output.fd = -1,
				      .in = BUFFER(RELAY_MAX),
				      .out = BUFFER(RELAY_MAX)};
	*ret_terminal = terminal;
	rc = fill_in(init, terminal, ret_slave, ret_input, ret_output);
	if (rc == 0)
		rc = terminal_resize(terminal, columns, rows);
	return rc;
}

int terminal_resize(struct terminal *terminal, unsigned int columns, unsigned int rows)
{
	struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};

	return ioctl(terminal->master.fd, TIOCSWINSZ, &size) < 0 ? -errno : 0;
}

void terminal_finish(struct init *init, struct terminal *terminal)
{
	terminal->finishing = true;
	relay(init, terminal);
}

static void close_source(struct init *init, struct source *source)
{
	if (source->ready)
		source_close(init, source);
	else
		cleanup_fd(&source->fd);
}

void terminal_free(struct init *init, struct terminal *terminal)
{
	if (!terminal)
		return;
	close_source(init, &terminal->master);
	close_source(init, &terminal->input);
	close_source(init, &terminal->output);
	buffer_free(&terminal->in);
	buffer_free(&terminal->out);
	free(terminal);
}
