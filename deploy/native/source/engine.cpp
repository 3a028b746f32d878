// Runs a network's steps on pictures: many pictures in parallel, or the rows of a few pictures in parallel.
#include "sets.h"
#include "threads.h"
#include "value.h"
#include <atomic>
#include <chrono>
#include <cstring>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace {

// Keeps subnormal numbers and rounds to nearest, whatever the caller has set. Processors without SSE do so by default.
struct Arithmetic {
#ifdef __SSE__
    unsigned before = _mm_getcsr();
    Arithmetic() { _mm_setcsr(0x1f80); }
    ~Arithmetic() { _mm_setcsr(before); }
#else
    Arithmetic() {}
#endif
};

// Computes a step that the engine cannot compute; called with the number of the step and the start of the arena.
typedef void (*Callback)(int64_t step, void *arena);

struct Network {
    const Kernels *kernels;
    const Step *steps;
    int64_t count;
    Value first, last;
    Callback reference;
    double *seconds;
};

// Copies a picture (channels, rows, columns) to a value (rows, columns, channels). CHANNELS: 0: v.channels.
template <int CHANNELS> void interleaved(const Value &v, const float *picture, uint8_t *arena) {
    const int channels = CHANNELS ? CHANNELS : v.channels, pitch = CHANNELS ? CHANNELS : v.pitch;
    const int64_t places = int64_t(v.rows) * v.columns;
    for (int row = 0; row < v.rows; row++, picture += v.columns) {
        float *__restrict to = row_of<float>(v, arena, row);
        for (int column = 0; column < v.columns; column++)
            for (int c = 0; c < channels; c++) to[int64_t(column) * pitch + c] = picture[c * places + column];
    }
}

void show(const Network &net, const float *picture, uint8_t *arena) {
    const Value &v = net.first;
    if (v.channels == 3 && v.pitch == 3) interleaved<3>(v, picture, arena);
    else interleaved<0>(v, picture, arena);
    border(v, arena, 0, v.rows);
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
    if (begin >= end) return;
    net.kernels->table[step.operation](step, arena, begin, end);
    border(step.result, arena, begin, end);
}

// Whether a step is left to the first thread: in parts it takes longer, because numbers travel from processor to processor.
bool alone(const Step &step) {
    const Value &in = step.source, &out = step.result;
    const int64_t numbers = int64_t(in.rows) * in.columns * in.channels + int64_t(out.rows) * out.columns * out.channels;
    switch (step.operation) {
        case REFERENCE: case MOVE: return true;
        case QUANTIZE: case DECODE: case AFFINE: case COMBINE: case SPANS: case BILINEAR: return numbers <= 8192;
        case FUNCTION: return numbers <= 2048;
        case PRODUCT: case OVER: return out.rows == 1 || numbers <= 2048;
        default: return out.rows == 1;
    }
}

// Runs the rows of a picture in parallel. Steps of the first thread alone need no meeting between them.
void steps_together(const Network &net, Meeting &meeting, uint8_t *arena, int thread, int threads, const float *picture, float *to) {
    bool before = true;  // the first thread alone has the picture
    if (thread == 0) show(net, picture, arena);
    for (int64_t s = 0; s < net.count; s++) {
        const bool now = alone(net.steps[s]);
        if (!before || !now) meeting.wait();
        if (!now) one_step(net, s, arena, thread, threads);
        else if (thread == 0) one_step(net, s, arena, 0, 1);
        before = now;
    }
    if (!before) meeting.wait();
    if (thread == 0) answer(net, arena, to);
}

void all_steps(const Network &net, uint8_t *arena) {
    using Clock = std::chrono::steady_clock;
    for (int64_t s = 0; s < net.count; s++) {
        if (!net.seconds) {
            one_step(net, s, arena, 0, 1);
            continue;
        }
        const Clock::time_point begin = Clock::now();
        one_step(net, s, arena, 0, 1);
        net.seconds[s] += std::chrono::duration<double>(Clock::now() - begin).count();
    }
}

}  // namespace

#define SHOWN __attribute__((visibility("default")))

extern "C" {

// The name of a compiled instruction set; null after the last one.
SHOWN const char *mc_name(int32_t which) {
    return which >= 0 && which < int32_t(sizeof all / sizeof *all) ? all[which]->name : nullptr;
}

SHOWN int32_t mc_runs_here(int32_t which) { return mc_name(which) && runs_here(all[which]); }

// The weight layout of an instruction set: see Kernels.
SHOWN void mc_widths(int32_t which, int32_t *to) {
    to[0] = all[which]->width;
    to[1] = all[which]->vectors;
    to[2] = all[which]->counted;
    to[3] = all[which]->depthwise_lanes;
    to[4] = all[which]->whole;
    to[5] = all[which]->tiles;
}

// The multiply-accumulates per second of one core, of signs or of bytes, measured for `seconds`.
SHOWN double mc_peak(int32_t which, int32_t bits, double seconds) { return all[which]->peak(bits, seconds); }

SHOWN int64_t mc_step_size() { return sizeof(Step); }

// Runs pictures (count, channels, rows, columns). `arenas` holds arena_size bytes for each thread. If `seconds` is not null,
// the time of each step is added to it, and `threads` must be 1.
SHOWN void mc_run(int32_t which, const Step *steps, int64_t step_count, const Value *first, const Value *last, uint8_t *arenas,
            int64_t arena_size, int32_t threads, const float *pictures, int64_t count, float *answers, Callback reference,
            double *seconds) {
    const Network net{all[which], steps, step_count, *first, *last, reference, seconds};
    const int64_t in = int64_t(first->rows) * first->columns * first->channels;
    const int64_t out = int64_t(last->rows) * last->columns * last->channels;
    const bool by_pictures = count >= threads;
    Teams &teams = Teams::here();
    Team *const team = threads > 1 ? teams.take() : nullptr;
    const int helpers = team ? team->provide(threads - 1) : 0, all_of_us = helpers + 1;
    Meeting meeting(all_of_us);
    std::atomic<int64_t> next{0};
    auto work = [&](int thread) {
        Arithmetic arithmetic;
        uint8_t *arena = arenas + (by_pictures ? thread * arena_size : 0);
        if (by_pictures) {
            for (int64_t i; (i = next.fetch_add(1)) < count;) {
                show(net, pictures + i * in, arena);
                all_steps(net, arena);
                answer(net, arena, answers + i * out);
            }
            return;
        }
        for (int64_t i = 0; i < count; i++)
            steps_together(net, meeting, arena, thread, all_of_us, pictures + i * in, answers + i * out);
    };
    if (!team) return work(0);
    team->run(helpers, work);
    teams.give_back(team);
}

}  // extern "C"
