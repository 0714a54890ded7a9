/* A stand-in for NVIDIA's driver, for tests on machines without a GPU: memory is the host's, kernels are compiled and loaded
 * but not run, what is asked of the driver is counted, and a launch that no GPU of the architecture could do is an error.
 *
 *   cc -shared -fPIC -O1 -o libcuda.so.1 libcuda_standin.c
 *
 * STANDIN_ARCH  compute capability of the device, as in sm_90 (default: 90)
 * STANDIN_LOG   file to which the counts are written at the end of the process: `COUNT<tab>launch<tab>KERNEL`,
 *               `COUNT<tab>call<tab>FUNCTION`
 * STANDIN_PTX   folder that gets every module as it was loaded: 0.ptx, 1.ptx, …
 *
 * Functions and values are those of CUDA's driver API (https://docs.nvidia.com/cuda/cuda-driver-api/), as cubecl-cuda 0.11 and
 * cudarc 0.19 call it. Only what they call is here; another version that calls more fails by the name of the function. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int result;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2 };
enum { MOST_NAMES = 65536, MEMORY_GIB = 80 };

typedef struct {
    char *name;
    const char *kind;
    unsigned long count;
} counter;

static counter counters[MOST_NAMES];
static int names;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void write_log(void) {
    const char *path = getenv("STANDIN_LOG");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    for (int i = 0; i < names; i++) fprintf(file, "%lu\t%s\t%s\n", counters[i].count, counters[i].kind, counters[i].name);
    fclose(file);
}

static void count(const char *kind, const char *name) {
    pthread_mutex_lock(&lock);
    if (names == 0) atexit(write_log);
    int i = 0;
    while (i < names && (counters[i].kind != kind || strcmp(counters[i].name, name))) i++;
    if (i == names && names < MOST_NAMES) counters[names++] = (counter){strdup(name), kind, 0};
    if (i < MOST_NAMES) counters[i].count++;
    pthread_mutex_unlock(&lock);
}

static const char *const CALL = "call", *const LAUNCH = "launch";
#define COUNTED count(CALL, __func__)

/* Devices */

static int arch(void) {
    const char *text = getenv("STANDIN_ARCH");
    return text ? atoi(text) : 90;
}

/* Bytes of shared memory that a block may have. */
static int most_shared(void) { return (arch() >= 90 ? 227 : arch() == 80 ? 163 : 99) << 10; }

result cuInit(unsigned flags) { (void)flags; return SUCCESS; }
result cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
result cuDeviceGetCount(int *devices) { *devices = 1; return SUCCESS; }
result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? SUCCESS : 101; }
result cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)MEMORY_GIB << 30; return SUCCESS; }
result cuMemGetInfo_v2(size_t *available, size_t *total) { *available = *total = (size_t)MEMORY_GIB << 30; return SUCCESS; }

result cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    snprintf(name, length, "stand-in sm_%d", arch());
    return SUCCESS;
}

result cuDeviceGetPCIBusId(char *id, int length, int device) {
    (void)device;
    snprintf(id, length, "0000:00:00.0");
    return SUCCESS;
}

result cuDeviceGetUuid_v2(unsigned char uuid[16], int device) {
    memset(uuid, device, 16);
    return SUCCESS;
}

/* CUdevice_attribute */
result cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;            /* MAX_THREADS_PER_BLOCK, MAX_BLOCK_DIM_X, _Y */
    case 4: *value = 64; break;                              /* MAX_BLOCK_DIM_Z */
    case 5: *value = INT32_MAX; break;                       /* MAX_GRID_DIM_X */
    case 6: case 7: *value = 65535; break;                   /* MAX_GRID_DIM_Y, _Z */
    case 8: *value = 48 << 10; break;                        /* MAX_SHARED_MEMORY_PER_BLOCK */
    case 10: *value = 32; break;                             /* WARP_SIZE */
    case 16: *value = arch() >= 90 ? 132 : 108; break;       /* MULTIPROCESSOR_COUNT */
    case 75: *value = arch() / 10; break;                    /* COMPUTE_CAPABILITY_MAJOR */
    case 76: *value = arch() % 10; break;                    /* COMPUTE_CAPABILITY_MINOR */
    case 97: *value = most_shared(); break;                  /* MAX_SHARED_MEMORY_PER_BLOCK_OPTIN */
    default: *value = 1;
    }
    return SUCCESS;
}

/* Contexts: there is one */

static int context;
result cuDevicePrimaryCtxRetain(void **made, int device) { (void)device; *made = &context; return SUCCESS; }
result cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return SUCCESS; }
result cuCtxSetCurrent(void *made) { (void)made; return SUCCESS; }
result cuCtxGetCurrent(void **made) { *made = &context; return SUCCESS; }
result cuCtxGetDevice(int *device) { *device = 0; return SUCCESS; }
result cuCtxSynchronize(void) { COUNTED; return SUCCESS; }
result cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return SUCCESS; }

/* Streams and events: everything is done when it is asked for */

static int stream;
result cuStreamCreate(void **made, unsigned flags) { (void)flags; *made = &stream; return SUCCESS; }
result cuStreamCreateWithPriority(void **made, unsigned flags, int priority) { (void)flags, (void)priority; *made = &stream; return SUCCESS; }
result cuStreamDestroy_v2(void *made) { (void)made; return SUCCESS; }
result cuStreamSynchronize(void *made) { (void)made; COUNTED; return SUCCESS; }
result cuStreamWaitEvent(void *made, void *event, unsigned flags) { (void)made, (void)event, (void)flags; return SUCCESS; }
result cuStreamQuery(void *made) { (void)made; return SUCCESS; }
result cuEventCreate(void **event, unsigned flags) { (void)flags; *event = &stream; return SUCCESS; }
result cuEventDestroy_v2(void *event) { (void)event; return SUCCESS; }
result cuEventRecord(void *event, void *made) { (void)event, (void)made; return SUCCESS; }
result cuEventQuery(void *event) { (void)event; return SUCCESS; }
result cuEventSynchronize(void *event) { (void)event; COUNTED; return SUCCESS; }
result cuEventElapsedTime(float *ms, void *a, void *b) { (void)a, (void)b; *ms = 0.01f; return SUCCESS; }
result cuEventElapsedTime_v2(float *ms, void *a, void *b) { return cuEventElapsedTime(ms, a, b); }

/* Memory: the host's, zeroed so that what no kernel has written is the same in every run */

result cuMemAlloc_v2(void **made, size_t bytes) {
    *made = NULL;
    if (posix_memalign(made, 512, bytes ? bytes : 1)) return OUT_OF_MEMORY;
    memset(*made, 0, bytes);
    return SUCCESS;
}
result cuMemAllocAsync(void **made, size_t bytes, void *on) { (void)on; return cuMemAlloc_v2(made, bytes); }
result cuMemAllocHost_v2(void **made, size_t bytes) { return cuMemAlloc_v2(made, bytes); }
result cuMemFree_v2(void *made) { free(made); return SUCCESS; }
result cuMemFreeAsync(void *made, void *on) { (void)on; return cuMemFree_v2(made); }
result cuMemFreeHost(void *made) { return cuMemFree_v2(made); }

static result copy(void *to, const void *from, size_t bytes) {
    if (!to || !from) return INVALID_VALUE;
    memmove(to, from, bytes);
    return SUCCESS;
}
result cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *on) { (void)on; COUNTED; return copy(to, from, bytes); }
result cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *on) { (void)on; COUNTED; return copy(to, from, bytes); }
result cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, void *on) { (void)on; return copy(to, from, bytes); }
result cuMemsetD8Async(void *to, unsigned char value, size_t bytes, void *on) { (void)on; memset(to, value, bytes); return SUCCESS; }

/* CUDA_MEMCPY2D */
typedef struct {
    size_t from_x, from_y;
    int from_kind;
    const void *from_host;
    const void *from_device;
    void *from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    int to_kind;
    void *to_host;
    void *to_device;
    void *to_array;
    size_t to_pitch;
    size_t width, height;
} copy_2d;

result cuMemcpy2DAsync_v2(const copy_2d *asked, void *on) {
    (void)on;
    COUNTED;
    const char *from = asked->from_kind == 1 ? asked->from_host : asked->from_device;
    char *to = asked->to_kind == 1 ? asked->to_host : asked->to_device;
    if (!from || !to) return INVALID_VALUE;
    for (size_t row = 0; row < asked->height; row++)
        memmove(to + (asked->to_y + row) * asked->to_pitch + asked->to_x,
                from + (asked->from_y + row) * asked->from_pitch + asked->from_x, asked->width);
    return SUCCESS;
}

/* Kernels: a module is its text, a function its name */

result cuModuleLoadData(void **module, const void *text) {
    static int modules;
    const char *folder = getenv("STANDIN_PTX");
    *module = (void *)text;
    COUNTED;
    if (!folder) return SUCCESS;
    char path[4096];
    snprintf(path, sizeof path, "%s/%d.ptx", folder, __sync_fetch_and_add(&modules, 1));
    FILE *file = fopen(path, "w");
    if (!file) return INVALID_VALUE;
    fputs(text, file);
    return fclose(file) ? INVALID_VALUE : SUCCESS;
}
result cuModuleLoadDataEx(void **module, const void *text, unsigned n, void *options, void **values) {
    (void)n, (void)options, (void)values;
    return cuModuleLoadData(module, text);
}
result cuModuleUnload(void *module) { (void)module; return SUCCESS; }
result cuModuleGetFunction(void **function, void *module, const char *name) { (void)module; *function = strdup(name); return *function ? SUCCESS : OUT_OF_MEMORY; }
/* 8 is MAX_DYNAMIC_SHARED_SIZE_BYTES. */
result cuFuncSetAttribute(void *function, int attribute, int value) {
    (void)function;
    return attribute == 8 && value > most_shared() ? INVALID_VALUE : SUCCESS;
}
result cuFuncGetAttribute(int *value, int attribute, void *function) { (void)function, (void)attribute; *value = 0; return SUCCESS; }

result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *on, void **parameters, void **extra) {
    (void)on, (void)parameters, (void)extra;
    if (!gx || !gy || !gz || gx > INT32_MAX || gy > 65535 || gz > 65535) return INVALID_VALUE;
    if (!bx || !by || !bz || bz > 64 || bx * by * bz > 1024 || shared > (unsigned)most_shared()) return INVALID_VALUE;
    count(LAUNCH, function);
    return SUCCESS;
}

/* Tensor maps: 128 opaque bytes that only kernels read */

result cuTensorMapEncodeTiled(void *map) { memset(map, 0, 128); return SUCCESS; }
result cuTensorMapEncodeIm2col(void *map) { memset(map, 0, 128); return SUCCESS; }
result cuTensorMapEncodeIm2colWide(void *map) { memset(map, 0, 128); return SUCCESS; }

result cuGetErrorName(result error, const char **text) { (void)error; *text = "stand-in error"; return SUCCESS; }
result cuGetErrorString(result error, const char **text) { return cuGetErrorName(error, text); }
