/* The reader of .npy files given bytes between unmapped pages: what it makes of headers that
 * are right, and the status and the words for each that is wrong. The command's tests open the
 * same files by name. */
#include "check.h"

#include "io/array.h"
#include "io/output.h"
#include "io/system.h"

struct header {
    const char *text;  /* the dictionary, or what stands for it */
    int major, minor;  /* version; 0: 1.0 */
    int64_t length;    /* what the file says that the text takes; -1: its true length */
    int64_t data;      /* bytes behind it */
    int status;        /* what lik_npy_read returns */
    const char *piece; /* of the message, or the shape */
};

/* The file, of which only the first `cut` bytes are there if that is not negative; an unmapped
 * page follows. */
static struct buffer file_of(const struct header *h, int64_t cut)
{
    int major = h->major ? h->major : 1;
    size_t text = strlen(h->text), start = major == 1 ? 10 : 12, all = start + text + (size_t)h->data;
    uint64_t length = h->length < 0 ? text : (uint64_t)h->length;
    unsigned char *bytes = malloc(all + 1);
    memcpy(bytes, "\x93NUMPY", 6);
    bytes[6] = (unsigned char)major;
    bytes[7] = (unsigned char)h->minor;
    for (size_t i = 8; i < start; i++)
        bytes[i] = (unsigned char)(length >> 8 * (i - 8));
    memcpy(bytes + start, h->text, text);
    for (size_t i = 0; i < (size_t)h->data; i++)
        bytes[start + text + i] = (unsigned char)i;
    size_t size = cut < 0 || (size_t)cut > all ? all : (size_t)cut;
    struct buffer b = buffer_make(size, AT_END, 1);
    memcpy(b.data, bytes, size);
    buffer_lock(&b);
    free(bytes);
    return b;
}

static int read_file(const struct buffer *b, struct lik_array *array, struct lik_io_error *error)
{
    struct lik_map map = {.data = b->data, .size = (int64_t)b->bytes};
    memset(error, 0, sizeof *error);
    return lik_npy_read(&map, "the file", array, error);
}

#define F4                                "{'descr': '<f4', 'fortran_order': False, 'shape': "
#define GOOD(text, data, shape)           {text, 0, 0, -1, data, 0, shape}
#define VERSION(major, text, data, shape) {text, major, 0, -1, data, 0, shape}
#define BAD(text, data, status, piece)    {text, 0, 0, -1, data, status, piece}
#define CORRUPT(text)                     BAD(text, 96, LIK_IO_UNREADABLE, "cannot be understood")
#define UNFIT(text, piece)                BAD(text, 96, LIK_IO_INCOMPATIBLE, piece)
#define DESCR(type)                       "{'descr': " type ", 'fortran_order': False, 'shape': (2,)}"

static const struct header headers[] = {
    GOOD(F4 "(2, 3, 4)}", 96, "2 x 3 x 4"),
    GOOD(F4 "(2,3,4,), }  \n", 96, "2 x 3 x 4"),
    GOOD("\t{ \"shape\" :\r(24L , 1L) , \"descr\":\"<f4\",'fortran_order':False}\n", 96, "24 x 1"),
    GOOD(F4 "(1234567890, 0)}", 0, "1234567890 x 0"),
    GOOD(F4 "(1, 1, 1, 1, 1, 1, 1, 24)}", 96, "1 x 1 x 1 x 1 x 1 x 1 x 1 x 24"),
    GOOD(F4 "()}", 4, "a single number"),
    GOOD("{'descr': '<f4', 'fortran_order': True, 'shape': (24,)}", 96, "24"),
    GOOD("{'descr': '<f4', 'fortran_order': True, 'shape': ()}", 4, "a single number"),
    VERSION(2, F4 "(2, 3, 4)}", 96, "2 x 3 x 4"),
    VERSION(3, F4 "(2, 3, 4)}", 96, "2 x 3 x 4"),
    GOOD(DESCR("'|i1'"), 2, "2"),
    GOOD(DESCR("'<i1'"), 2, "2"),
    GOOD(DESCR("'|b1'"), 2, "2"),
    GOOD(DESCR("'<u8'"), 16, "2"),
    CORRUPT("hello"),
    CORRUPT(""),
    CORRUPT("{"),
    CORRUPT("{}"),
    CORRUPT("{'descr"),
    CORRUPT("{descr: '<f4'}"),
    CORRUPT("{'descr' '<f4'}"),
    CORRUPT("{'descr': <f4}"),
    CORRUPT("{'descr': '<f4' 'fortran_order': False, 'shape': (24,)}"),
    CORRUPT("{'descr': '<f4', 'fortran_order': false, 'shape': (24,)}"),
    CORRUPT("{'descr': '<f4', 'shape': (24,), 'fortran_order': Fals"),
    CORRUPT("{'descr': '<f4', 'shape': (24,), 'fortran_order': "),
    CORRUPT("{'descr': '<f4', 'fortran_order': False}"),
    CORRUPT("{'descr': '<f4', 'shape': (24,)}"),
    CORRUPT("{'fortran_order': False, 'shape': (24,)}"),
    CORRUPT("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (24,)}"),
    CORRUPT("{'descr': '<f4', 'fortran_order': False, 'shape': (24,), 'shape': (24,)}"),
    CORRUPT("{'descr': '<f4', 'fortran_order': False, 'shape': (24,), 'a key of many letters': 1}"),
    CORRUPT("{'descr': '<f4', 'fortran_order': False, 'shape': (24,), 'other': 1}"),
    CORRUPT(F4 "(24,)} x"),
    CORRUPT(F4 "(24,)"),
    CORRUPT(F4 "(24"),
    CORRUPT(F4 "(24 1)}"),
    CORRUPT(F4 "(24l,)}"),
    CORRUPT(F4 "(-24,)}"),
    CORRUPT(F4 "(,)}"),
    CORRUPT(F4 "24}"),
    CORRUPT(F4 "(1, 1, 1, 1, 1, 1, 1, 1, 24)}"),
    CORRUPT(F4 "(9223372036854775808,)}"),
    CORRUPT(F4 "(92233720368547758070,)}"),
    CORRUPT(F4 "(36893488147419103256,)}"), /* 24 more than 2^65 */
    BAD(F4 "(9223372036854775807, 0)}", 0, LIK_IO_UNREADABLE, "2^63"),
    BAD(F4 "(4294967296, 2147483648)}", 0, LIK_IO_UNREADABLE, "2^63"),
    UNFIT("{'descr': '<f4', 'fortran_order': True, 'shape': (12, 2)}", "Fortran"),
    UNFIT(DESCR("'>f4'"), "big-endian"),
    UNFIT(DESCR("'=f4'"), "unknown type ('=f4')"),
    UNFIT(DESCR("'|f4'"), "unknown type ('|f4')"),
    UNFIT(DESCR("'=i1'"), "unknown type ('=i1')"),
    UNFIT(DESCR("'|O'"), "Python objects"),
    UNFIT(DESCR("[('a', '<f4')]"), "records"),
    UNFIT(DESCR("'<V2'"), "without a type"),
    UNFIT(DESCR("'<f1'"), "without a type"),
    UNFIT(DESCR("'<U7'"), "text"),
    UNFIT(DESCR("'|S7'"), "text"),
    UNFIT(DESCR("'<c8'"), "complex"),
    UNFIT(DESCR("'<f16'"), "unknown type ('<f16')"),
    UNFIT(DESCR("''"), "unknown type ('')"),
    UNFIT(DESCR("'<jjjjjjjjjjjjjj'"), "unknown type ('<jjjjjjjjjjjjjj')"), /* the longest that is looked at */
    CORRUPT(DESCR("'<jjjjjjjjjjjjjjo'")),
    CORRUPT(DESCR("'<f4")),
    BAD(F4 "(2, 3, 4)}", 95, LIK_IO_UNREADABLE, "96 bytes, the file holds 95: it was cut short"),
    BAD(F4 "(2, 3, 4)}", 97, LIK_IO_UNREADABLE, "96 bytes, the file holds 97: it has something behind"),
    {F4 "(24,)}", 4, 0, -1, 96, LIK_IO_INCOMPATIBLE, "version 4.0"},
    {F4 "(24,)}", 255, 0, -1, 96, LIK_IO_INCOMPATIBLE, "version 255.0"},
    {F4 "(24,)}", 1, 1, -1, 96, LIK_IO_INCOMPATIBLE, "version 1.1"},
    {F4 "(24,)}", 1, 0, 60000, 96, LIK_IO_UNREADABLE, "the header ends at byte 60010"},
    {F4 "(24,)}", 2, 0, 4294967295, 96, LIK_IO_UNREADABLE, "the header ends at byte 4294967307"},
    {F4 "(24,)}", 2, 0, 0x02000000, 96, LIK_IO_UNREADABLE, "the header ends at byte 33554444"},
    {F4 "(24,)}", 2, 0, 0x00010000, 96, LIK_IO_UNREADABLE, "the header ends at byte 65548"},
    {"", 2, 0, 0x00010000, 0, LIK_IO_UNREADABLE, "the header ends at byte 65548"},
    BAD("{'descr': '<f4', 'shape': (0,), 'fortran_order': Fals", 0, LIK_IO_UNREADABLE,
        "cannot be understood"),
    {"x", 1, 0, 2, 0, LIK_IO_UNREADABLE, "the header ends at byte 12, the file has 11"},
};

static void check_header(const struct header *h, int64_t number)
{
    struct buffer b = file_of(h, -1);
    struct lik_array array;
    struct lik_io_error error;
    char text[160];
    totals.cases++;
    check_describe("files: header %lld, \"%s\"", (long long)number, h->text);
    int status = read_file(&b, &array, &error);
    check(status == h->status, "the status is %d, expected %d (%s)", status, h->status, error.text);
    if (h->status) {
        check(strstr(error.text, h->piece) && strstr(error.text, "the file"), "the message is \"%s\"",
              error.text);
    } else if (!status) {
        const char *shape = lik_array_shape_text(&array, text);
        check(!strcmp(shape, h->piece), "the shape is %s, expected %s", shape, h->piece);
        check(array.bytes == h->data && array.data == b.data + b.bytes - h->data,
              "%lld bytes of data at %lld", (long long)array.bytes, (long long)(array.data - b.data));
    }
    buffer_free(&b);
}

/* Files of every length up to a whole one: all are refused, none is read past its end. */
static void check_cut(int major)
{
    const struct header h = {.text = F4 "(2, 3)}", .major = major, .length = -1, .data = 24};
    struct lik_array array;
    struct lik_io_error error;
    int64_t all = (major == 1 ? 10 : 12) + (int64_t)strlen(h.text) + h.data;
    for (int64_t size = 0; size <= all; size++) {
        struct buffer b = file_of(&h, size);
        struct lik_map map = {.data = b.data, .size = size};
        totals.cases++;
        check_describe("files: a version %d header cut to %lld bytes", major, (long long)size);
        check(!!lik_npy_recognize(&map) == (size >= 6), "it is %srecognized", size >= 6 ? "not " : "");
        int status = read_file(&b, &array, &error);
        check(status == (size < all ? LIK_IO_UNREADABLE : 0), "the status is %d: %s", status, error.text);
        const char *piece = size < 6     ? "not a .npy file"
                            : size < 10  ? "at least 10"
                            : size < all ? "cut short"
                                         : "";
        check(strstr(error.text, piece) != NULL, "the message is \"%s\"", error.text);
        buffer_free(&b);
    }
}

/* What is written can be read again, and stands in the file as NumPy has it: a multiple of 64
 * bytes, a newline last. */
static void check_written(int type, int rank, const int64_t *shape)
{
    char path[256], text[512] = {0};
    const char *folder = lik_environment("TMPDIR") ? lik_environment("TMPDIR") : lik_environment("TEMP");
    struct lik_output out, *outs[] = {&out};
    struct lik_io_error error = {{0}};
    struct lik_array array = {0};
    struct lik_map map = {0};
    int64_t data = lik_array_type_bytes(type), start = 0;
    snprintf(path, sizeof path, "%s/lik-check-\u00e9-%.0f.npy", folder ? folder : "/tmp",
             lik_seconds() * 1e9);
    totals.cases++;
    check_describe("files: a header of rank %d written", rank);
    for (int i = 0; i < rank; i++)
        data *= shape[i];
    int status = lik_output_open(&out, path, &error);
    if (!status)
        status = lik_npy_write_header(&out, type, rank, shape, &error);
    if (!status)
        status = lik_outputs_commit(outs, 1, &error);
    if (!status)
        status = lik_map_open(path, &map, &error);
    if (check(!status, "%d: %s", status, error.text))
        start = map.size;
    check(start % 64 == 0 && start > 0 && start < COUNT(text), "the header takes %lld bytes",
          (long long)start);
    struct buffer b = buffer_make((size_t)(start + data), AT_END, 1);
    memset(b.data, 0, b.bytes);
    if (start > 0 && start < COUNT(text)) {
        memcpy(b.data, map.data, (size_t)start);
        memcpy(text, b.data + 10, (size_t)start - 10);
        check(text[start - 11] == '\n', "the header does not end in a newline");
        check(rank != 1 || strstr(text, "(3,)"), "the dictionary is %s", text);
        status = read_file(&b, &array, &error);
        check(!status && array.type == type && array.rank == rank && array.bytes == data &&
                  !memcmp(array.shape, shape, (size_t)rank * sizeof *shape),
              "read again it is %d: %s", status, error.text);
    }
    buffer_free(&b);
    lik_map_close(&map);
    check(!lik_file_remove(path), "%s cannot be removed", path);
}

void check_files(void)
{
    static const int64_t shape[] = {3, 5, 2, 7};
    for (int64_t n = 0; n < COUNT(headers); n++)
        check_header(&headers[n], n);
    for (int major = 1; major <= 3; major++)
        check_cut(major);
    for (int rank = 0; rank <= 4; rank++) {
        check_written(LIK_ARRAY_F32, rank, shape);
        check_written(LIK_ARRAY_I64, rank, shape);
    }
}
