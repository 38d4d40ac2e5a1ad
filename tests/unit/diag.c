/* diag.c -- the excerpt under a message: a long line is cut around the place, bytes that are no
 * text become '?'. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/base/diag.h"

/* What diag_print prints for an error at `col` of a one-line source. */
static char *printed(Arena *a, const char *line, size_t n, uint32_t col, uint32_t len)
{
    SourceSet sources = {.arena = a};
    Diag d = {.arena = a, .sources = &sources};
    uint32_t source = source_add(&sources, "x.zm", line, n);
    diag_error(&d, (SrcPos){source, 1, col, len}, E_USAGE, "wrong");
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ZM_CHECK(out != NULL);
    diag_print(&d, out);
    fclose(out);
    return text;
}

static int expect(Arena *a, const char *line, size_t n, uint32_t col, uint32_t len,
                  const char *excerpt)
{
    char *text = printed(a, line, n, col, len);
    char *want = arena_printf(a, "x.zm:1:%u: error[E0801]: wrong\n    1 | %s\n", col, excerpt);
    int bad = strcmp(text, want) != 0;
    if (bad) printf("want:\n%sgot:\n%s", want, text);
    free(text);
    return bad;
}

int main(void)
{
    Arena a = {0};
    int bad = expect(&a, "let x = y", 9, 9, 1, "let x = y\n      |         ^");
    bad += expect(&a, "a\033[2J\x80\xffz", 8, 1, 2, "a?[2J??z\n      | ^~");
    bad += expect(&a, "\xc3\xa4 = b", 6, 6, 1, "\xc3\xa4 = b\n      |      ^");
    char line[1000];
    memset(line, 'a', sizeof line);
    line[499] = 'B'; /* column 500 */
    char *want = arena_printf(&a, "%.79sB%.80s\n      | %79s^", line, line, "");
    bad += expect(&a, line, sizeof line, 500, 1, want);
    bad += expect(&a, "", 0, 1, 1, "\n      | ^");
    arena_free(&a);
    return bad != 0;
}
