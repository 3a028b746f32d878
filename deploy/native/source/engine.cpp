// Runs the steps of a network on pictures: many pictures side by side, or the rows of a few.
#include "step.h"
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>
#include <xmmintrin.h>

extern const Kernels plain_kernels;
#ifdef WITH_AVX2
extern const Kernels avx2_kernels;
#endif

namespace {

const Kernels *const all[] = {
    &plain_kernels,
#ifdef WITH_AVX2
    &avx2_kernels,
#endif
};

bool runs_here(const Kernels *kernels) {
    if (kernels == &plain_kernels) return true;
#ifdef WITH_AVX2
    if (kernels == &avx2_kernels) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
#endif
    return false;
}

// Numbers below the smallest normal one stay what they are, and rounding is to nearest, whatever the caller has set.
struct Arithmetic {
    unsigned before = _mm_getcsr();
    Arithmetic() { _mm_setcsr(0x1f80); }
    ~Arithmetic() { _mm_setcsr(before); }
};

// All threads wait for the last one. Who waits spins: steps take microseconds.
class Meeting {
    std::atomic<int> waiting{0}, round{0};
    const int threads;

  public:
    explicit Meeting(int count) : threads(count) {}
    void wait() {
        const int now = round.load();
        if (waiting.fetch_add(1) + 1 == threads) {
            waiting.store(0);
            round.fetch_add(1);
        } else {
            for (int turns = 0; round.load() == now; turns++)
                if (turns > 2000) std::this_thread::yield();
        }
    }
};

// What the engine cannot do itself is done by the caller: told the number of the step and the begin of the arena.
typedef void (*Callback)(int64_t step, void *arena);

struct Network {
    const Kernels *kernels;
    const Step *steps;
    int64_t count;
    Value first, last;
    Callback reference;
};

// (channels, rows, columns) as callers have it, and (rows, columns, channels) as values lie.
void show(const Network &net, const float *picture, uint8_t *arena) {
    const Value &v = net.first;
    float *to = reinterpret_cast<float *>(arena + v.at);
    const int64_t places = int64_t(v.rows) * v.columns;
    for (int c = 0; c < v.channels; c++)
        for (int64_t i = 0; i < places; i++) to[i * v.pitch + c] = picture[c * places + i];
}

void answer(const Network &net, const uint8_t *arena, float *to) {
    const Value &v = net.last;
    const float *from = reinterpret_cast<const float *>(arena + v.at);
    const int64_t places = int64_t(v.rows) * v.columns;
    for (int c = 0; c < v.channels; c++)
        for (int64_t i = 0; i < places; i++) to[c * places + i] = from[i * v.pitch + c];
}

void one_step(const Network &net, int64_t number, uint8_t *arena, int part, int parts) {
    const Step &step = net.steps[number];
    if (step.operation == REFERENCE) {
        if (part == 0) net.reference(number, arena);
        return;
    }
    const int rows = step.result.rows;
    const int begin = int(int64_t(rows) * part / parts), end = int(int64_t(rows) * (part + 1) / parts);
    if (begin < end) net.kernels->table[step.operation](step, arena, begin, end);
}

}  // namespace

#define SHOWN __attribute__((visibility("default")))

extern "C" {

// The name of an instruction set that was built in, or null behind the last one.
SHOWN const char *mc_name(int32_t which) {
    return which >= 0 && which < int32_t(sizeof all / sizeof *all) ? all[which]->name : nullptr;
}

SHOWN int32_t mc_runs_here(int32_t which) { return mc_name(which) && runs_here(all[which]); }

SHOWN int64_t mc_step_size() { return sizeof(Step); }

// Pictures (count, channels, rows, columns) to answers. `arenas` holds as many bytes for each thread as one picture takes.
SHOWN void mc_run(int32_t which, const Step *steps, int64_t step_count, const Value *first, const Value *last, uint8_t *arenas,
            int64_t arena_size, int32_t threads, const float *pictures, int64_t count, float *answers, Callback reference) {
    const Network net{all[which], steps, step_count, *first, *last, reference};
    const int64_t in = int64_t(first->rows) * first->columns * first->channels;
    const int64_t out = int64_t(last->rows) * last->columns * last->channels;
    const bool apart = count >= threads;
    Meeting meeting(threads);
    std::atomic<int64_t> next{0};
    auto work = [&](int thread) {
        Arithmetic arithmetic;
        uint8_t *arena = arenas + (apart ? thread * arena_size : 0);
        if (apart) {
            for (int64_t i; (i = next.fetch_add(1)) < count;) {
                show(net, pictures + i * in, arena);
                for (int64_t s = 0; s < net.count; s++) one_step(net, s, arena, 0, 1);
                answer(net, arena, answers + i * out);
            }
            return;
        }
        for (int64_t i = 0; i < count; i++) {
            if (thread == 0) show(net, pictures + i * in, arena);
            meeting.wait();
            for (int64_t s = 0; s < net.count; s++) {
                one_step(net, s, arena, thread, threads);
                meeting.wait();
            }
            if (thread == 0) answer(net, arena, answers + i * out);
            meeting.wait();
        }
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; thread++) others.emplace_back(work, thread);
    work(0);
    for (std::thread &other : others) other.join();
}

}  // extern "C"
