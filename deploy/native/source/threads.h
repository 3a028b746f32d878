// Threads that are kept between calls, because starting one takes as long as a small network, and where they meet.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__unix__) || defined(__APPLE__)
#include <csignal>
#include <unistd.h>
#endif
#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace {

inline void pause() {
#ifdef __SSE2__
    _mm_pause();
#endif
}

// Waits until `done`: a microsecond without giving up the processor, then for a thread that may need this one's processor.
template <class Done> void spin_until(Done done) {
    for (int turns = 0; !done(); turns++)
        if (turns < 50) pause();
        else std::this_thread::yield();
}

// A barrier for all threads of a call.
class Meeting {
    const int threads;
    std::atomic<int> waiting{0}, round{0};

  public:
    explicit Meeting(int count) : threads(count) {}
    void wait() {
        const int now = round.load();
        if (waiting.fetch_add(1) + 1 == threads) {
            waiting.store(0);
            round.fetch_add(1);
        } else spin_until([&] { return round.load() != now; });
    }
};

// While it lives, new threads are made that no signal of the process reaches: these are for the caller's threads.
class Deaf {
#if defined(__unix__) || defined(__APPLE__)
    sigset_t before;

  public:
    Deaf() {
        sigset_t every;
        sigfillset(&every);
        pthread_sigmask(SIG_SETMASK, &every, &before);
    }
    ~Deaf() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
    Deaf(const Deaf &) = delete;
    Deaf &operator=(const Deaf &) = delete;
#endif
};

// Threads that work beside the caller's. They are never joined: a process may end while they wait. They stay for later calls, so a
// process has as many teams as it ever had calls at one time.
class Team {
    typedef void (*Work)(void *what, int thread);
    static constexpr std::chrono::microseconds AWAKE{200};  // longer than between the calls of a loop
    static constexpr int64_t MEMBERS = 1 << 16;

    std::atomic<int64_t> call{0};  // the number of the call, times MEMBERS, plus the helpers that take part
    std::atomic<int> working{0};
    Work work = nullptr;
    void *what = nullptr;
    int hired = 0;
    std::mutex mutex;
    std::condition_variable called;

    int64_t next_call(int64_t before) {
        using Clock = std::chrono::steady_clock;
        for (const Clock::time_point end = Clock::now() + AWAKE; Clock::now() < end; std::this_thread::yield())
            for (int turns = 0; turns < 50; turns++, pause())
                if (const int64_t now = call.load(); now != before) return now;
        std::unique_lock<std::mutex> lock(mutex);
        called.wait(lock, [&] { return call.load() != before; });
        return call.load();
    }
    void help(int number, int64_t seen) {
        for (;;) {
            seen = next_call(seen);
            if (number >= seen % MEMBERS) continue;
            work(what, number + 1);
            working.fetch_sub(1);
        }
    }

  public:
    // Provides up to `helpers` threads and returns how many there are: fewer if the system refuses one.
    int provide(int helpers) {
        const Deaf deaf;
        try {
            for (; hired < helpers; hired++) std::thread(&Team::help, this, hired, call.load()).detach();
        } catch (const std::exception &) {
        }
        return hired < helpers ? hired : helpers;
    }

    // Calls act(thread) on the caller's thread, number 0, and on each of the helpers.
    template <class Act> void run(int helpers, Act &act) {
        if (helpers) {
            work = [](void *to, int thread) { (*static_cast<Act *>(to))(thread); };
            what = &act;
            working.store(helpers);
            {
                std::lock_guard<std::mutex> lock(mutex);
                call.store((call.load() / MEMBERS + 1) * MEMBERS + helpers);
            }
            called.notify_all();
        }
        act(0);
        spin_until([&] { return working.load() == 0; });
    }
};

// Teams that no call uses at present. A forked process has none of its parent's threads, so it begins with new teams.
class Teams {
    std::mutex mutex;
    std::vector<Team *> idle;

    static int64_t process() {
#if defined(__unix__) || defined(__APPLE__)
        return getpid();
#else
        return 0;
#endif
    }

  public:
    const int64_t of = process();
    static Teams &here() {
        static std::atomic<Teams *> current{new Teams};
        Teams *found = current.load();
        if (found->of != process()) {
            Teams *made = new Teams;
            if (!current.compare_exchange_strong(found, made)) delete made;
        }
        return *current.load();
    }
    Team *take() {
        std::lock_guard<std::mutex> lock(mutex);
        if (idle.empty()) return new Team;
        Team *found = idle.back();
        idle.pop_back();
        return found;
    }
    void give_back(Team *team) {
        std::lock_guard<std::mutex> lock(mutex);
        idle.push_back(team);
    }
};

}  // namespace
