/* A CUDA driver without a GPU: it answers as an H100 would, keeps memory in the host's, and runs no kernel.
 *
 *   cc -shared -fPIC -o DIR/libcuda.so tools/cuda-stub.c
 *   LD_LIBRARY_PATH=DIR CUDA_STUB_PTX=OUT pol bench --unprobed --backend cuda ...
 *
 * What it is for: every kernel that the program would hand to NVIDIA's driver is written to the folder
 * CUDA_STUB_PTX (tools/sass assembles them), and a driver's failures can be had at will. All results are
 * zeros, and the probe of exact numerics says so.
 *
 *   CUDA_STUB_PTX=DIR         a file for each kernel that is loaded
 *   CUDA_STUB_ARCH=90         the compute capability
 *   CUDA_STUB_DRIVER=13000    the driver's version
 *   CUDA_STUB_INIT=CODE       what cuInit answers
 *   CUDA_STUB_LOAD=CODE       what loading a kernel answers
 *   CUDA_STUB_MEMORY=BYTES    the device's memory
 *   CUDA_STUB_LOST=N          after N launches every call answers CUDA_ERROR_LAUNCH_FAILED
 *
 * Only what CubeCL calls is here: a function that is missing is named when it is called. The numbers are
 * those of NVIDIA's CUDA Driver API Reference.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_PTX = 218,
  NOT_FOUND = 500,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801
};

typedef struct block {
  struct block *next;
  void *memory;
  size_t size;
} block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block *blocks;
static size_t held;
static long launches, modules;

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}

static int lost(void) {
  long after = setting("CUDA_STUB_LOST", -1);
  return after >= 0 && __atomic_load_n(&launches, __ATOMIC_SEQ_CST) > after;
}

#define ALIVE                                                                                                  \
  if (lost()) return LAUNCH_FAILED

static size_t capacity(void) { return (size_t)setting("CUDA_STUB_MEMORY", 8L << 30); }

static int allocate(void **out, size_t size) {
  ALIVE;
  pthread_mutex_lock(&lock);
  block *made = held + size > capacity() ? NULL : malloc(sizeof *made);
  if (made && !(made->memory = calloc(1, size + 512))) {
    free(made);
    made = NULL;
  }
  if (made) {
    made->size = size;
    made->next = blocks;
    blocks = made;
    held += size;
    *out = made->memory;
  }
  pthread_mutex_unlock(&lock);
  return made ? SUCCESS : OUT_OF_MEMORY;
}

static int release(void *memory) {
  pthread_mutex_lock(&lock);
  for (block **at = &blocks; *at; at = &(*at)->next) {
    if ((*at)->memory != memory) continue;
    block *gone = *at;
    *at = gone->next;
    held -= gone->size;
    free(gone->memory);
    free(gone);
    break;
  }
  pthread_mutex_unlock(&lock);
  return SUCCESS;
}

/* The driver and its device. */

int cuInit(unsigned flags) { return (int)setting("CUDA_STUB_INIT", SUCCESS); }
int cuDriverGetVersion(int *version) { return *version = (int)setting("CUDA_STUB_DRIVER", 13000), SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { return *device = 0, ordinal ? INVALID_DEVICE : SUCCESS; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = capacity(), SUCCESS; }

int cuDeviceGetName(char *name, int length, int device) {
  snprintf(name, (size_t)length, "no GPU, a stub of its driver");
  return SUCCESS;
}

int cuDeviceGetPCIBusId(char *id, int length, int device) {
  snprintf(id, (size_t)length, "0000:00:00.0");
  return SUCCESS;
}

int cuDeviceGetUuid_v2(char *uuid, int device) { return memset(uuid, 0, 16), SUCCESS; }
int cuDeviceGetUuid(char *uuid, int device) { return memset(uuid, 0, 16), SUCCESS; }

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int arch = (int)setting("CUDA_STUB_ARCH", 90);
  switch (attribute) {
    case 1: *value = 1024; break;       /* threads of a block */
    case 2: *value = 1024; break;       /* its extent in x, y, z */
    case 3: *value = 1024; break;
    case 4: *value = 64; break;
    case 5: *value = 2147483647; break; /* a grid's */
    case 6: *value = 65535; break;
    case 7: *value = 65535; break;
    case 8: *value = 49152; break;      /* shared memory of a block */
    case 10: *value = 32; break;        /* threads of a warp */
    case 16: *value = 132; break;       /* multiprocessors */
    case 75: *value = arch / 10; break; /* compute capability */
    case 76: *value = arch % 10; break;
    case 97: *value = 232448; break;    /* shared memory of a block that asks for more */
    case 115: *value = 1; break;        /* memory pools */
    default: *value = 0;
  }
  return SUCCESS;
}

int cuGetErrorName(int error, const char **name) { return *name = "CUDA_ERROR", SUCCESS; }

int cuGetErrorString(int error, const char **text) {
  switch (error) {
    case OUT_OF_MEMORY: *text = "out of memory"; break;
    case 35: *text = "CUDA driver version is insufficient for CUDA runtime version"; break;
    case NO_DEVICE: *text = "no CUDA-capable device is detected"; break;
    case 222: *text = "the provided PTX was compiled with an unsupported toolchain."; break;
    case LAUNCH_FAILED: *text = "unspecified launch failure"; break;
    default: *text = "an error of the stub";
  }
  return SUCCESS;
}

/* Contexts, streams, events: nothing happens out of order here. */

static int something;

int cuDevicePrimaryCtxRetain(void **context, int device) { ALIVE; return *context = &something, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { return SUCCESS; }
int cuCtxSetCurrent(void *context) { return SUCCESS; }
int cuCtxGetCurrent(void **context) { return *context = &something, SUCCESS; }
int cuCtxSynchronize(void) { ALIVE; return SUCCESS; }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = *greatest = 0, SUCCESS; }
int cuStreamCreate(void **stream, unsigned flags) { ALIVE; return *stream = &something, SUCCESS; }
int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { return cuStreamCreate(stream, flags); }
int cuStreamDestroy_v2(void *stream) { return SUCCESS; }
int cuStreamSynchronize(void *stream) { ALIVE; return SUCCESS; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { ALIVE; return SUCCESS; }
int cuStreamIsCapturing(void *stream, int *status) { return *status = 0, SUCCESS; }
int cuStreamBeginCapture_v2(void *stream, int mode) { return NOT_SUPPORTED; }
int cuEventCreate(void **event, unsigned flags) { ALIVE; return *event = &something, SUCCESS; }
int cuEventDestroy_v2(void *event) { return SUCCESS; }
int cuEventRecord(void *event, void *stream) { ALIVE; return SUCCESS; }
int cuEventSynchronize(void *event) { ALIVE; return SUCCESS; }
int cuEventQuery(void *event) { ALIVE; return SUCCESS; }
int cuEventElapsedTime(float *ms, void *start, void *end) { ALIVE; return *ms = 0.001f, SUCCESS; }
int cuEventElapsedTime_v2(float *ms, void *start, void *end) { return cuEventElapsedTime(ms, start, end); }

/* Memory. */

int cuMemAlloc_v2(unsigned long long *out, size_t size) { return allocate((void **)out, size); }
int cuMemAllocAsync(unsigned long long *out, size_t size, void *stream) { return cuMemAlloc_v2(out, size); }
int cuMemFree_v2(unsigned long long memory) { return release((void *)memory); }
int cuMemFreeAsync(unsigned long long memory, void *stream) { return release((void *)memory); }
int cuMemAllocHost_v2(void **out, size_t size) { return (*out = calloc(1, size + 512)) ? SUCCESS : OUT_OF_MEMORY; }
int cuMemHostAlloc(void **out, size_t size, unsigned flags) { return cuMemAllocHost_v2(out, size); }
int cuMemFreeHost(void *memory) { return free(memory), SUCCESS; }

int cuMemGetInfo_v2(size_t *unused, size_t *total) {
  ALIVE;
  return *total = capacity(), *unused = *total - held, SUCCESS;
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t size, void *stream) {
  ALIVE;
  return memcpy((void *)to, from, size), SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t size, void *stream) {
  ALIVE;
  return memcpy(to, (const void *)from, size), SUCCESS;
}

int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t size, void *stream) {
  ALIVE;
  return memcpy((void *)to, (const void *)from, size), SUCCESS;
}

int cuMemsetD8Async(unsigned long long to, unsigned char value, size_t count, void *stream) {
  ALIVE;
  return memset((void *)to, value, count), SUCCESS;
}

typedef struct {
  size_t x, y;
  int kind; /* 1 host, 2 device */
  void *host;
  unsigned long long device;
  void *array;
  size_t pitch;
} side;

typedef struct {
  side from, to;
  size_t width, height;
} copy_2d;

static char *start(const side *side) {
  char *base = side->kind == 1 ? (char *)side->host : (char *)side->device;
  return base + side->y * side->pitch + side->x;
}

int cuMemcpy2DAsync_v2(const copy_2d *copy, void *stream) {
  ALIVE;
  for (size_t row = 0; row < copy->height; row++)
    memcpy(start(&copy->to) + row * copy->to.pitch, start(&copy->from) + row * copy->from.pitch, copy->width);
  return SUCCESS;
}

/* Kernels: kept as text, never run. */

int cuModuleLoadData(void **module, const void *image) {
  ALIVE;
  long refused = setting("CUDA_STUB_LOAD", SUCCESS);
  if (refused) return (int)refused;
  const char *folder = getenv("CUDA_STUB_PTX");
  long number = __atomic_fetch_add(&modules, 1, __ATOMIC_SEQ_CST);
  *module = &something;
  if (!folder) return SUCCESS;
  char path[4096];
  snprintf(path, sizeof path, "%s/%ld-%04ld.ptx", folder, (long)getpid(), number);
  FILE *file = fopen(path, "w");
  if (!file || fputs(image, file) < 0 || fclose(file)) {
    fprintf(stderr, "the stub of the CUDA driver cannot write %s\n", path);
    abort();
  }
  return SUCCESS;
}

int cuModuleGetFunction(void **function, void *module, const char *name) { return *function = &something, SUCCESS; }
int cuModuleUnload(void *module) { return SUCCESS; }
int cuFuncSetAttribute(void *function, int attribute, int value) { ALIVE; return SUCCESS; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { return *value = 0, SUCCESS; }

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
  __atomic_fetch_add(&launches, 1, __ATOMIC_SEQ_CST);
  ALIVE;
  return SUCCESS;
}
