/* rt_progress.c -- a terminal gets one line that is rewritten, anything else a line now and then.
 */
#include <fcntl.h>

#include "runtime/progress.h"
#include "tests/unit/rt_tiny.h"

static void show_steps(int fd)
{
    Progress p;
    progress_begin(&p, fd, 0, 100);
    for (int64_t s = 0; s < 100; s++) {
        StepResult r = {.step = s, .loss = 2, .grad_norm = -NAN, .lr = 1e-3, .seconds = 1e-3};
        r.loss_scale = 1;
        r.tokens_per_second = 2e6;
        r.is_skipped = s == 7 || s == 8; /* not shown themselves: the last line counts them */
        progress_step(&p, &r);
        if (s == 49) progress_note(&p, "saved %d", 50);
    }
    progress_end(&p);
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    return n;
}

static void test_terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(slave >= 0);
    show_steps(slave);
    char text[8192] = {0};
    size_t n = 0;
    CHECK(fcntl(master, F_SETFL, O_NONBLOCK) == 0);
    for (ssize_t got; (got = read(master, text + n, sizeof text - 1 - n)) > 0;) n += (size_t)got;
    CHECK(n > 0 && count(text, "\rstep ") >= 2); /* the first, the last, what 0.1 s allow between */
    CHECK(strstr(text, "\033[K\r\nsaved 50\r\n") &&
          strstr(text, "step 100/100  loss 2.0000  norm nan  lr 0.001  2 skipped  2.00M tok/s"));
    CHECK(text[n - 1] == '\n');
    close(slave);
    close(master);
}

static void test_file(void)
{
    int fd = open("log", O_RDWR | O_CREAT | O_TRUNC, 0666);
    CHECK(fd >= 0);
    show_steps(fd);
    close(fd);
    char *text = tiny_read("log", NULL);
    CHECK(count(text, "step ") == 2 && count(text, "\n") == 3 &&
          !strchr(text, '\r')); /* first, note, last */
    free(text);
}

int main(void)
{
    tiny_enter_dir();
    test_terminal();
    test_file();
    tiny_remove_dir();
    return 0;
}
