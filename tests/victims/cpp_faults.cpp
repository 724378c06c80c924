// Fails in every way that C++ adds to C: `cpp_faults MODE`.
//
// Unless it says otherwise a mode ends by std::terminate, hence SIGABRT.
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>

#define NOINLINE __attribute__((noinline))

namespace shop {

// Derives from std::runtime_error, so that what() reads as the base's does.
struct out_of_stock : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// std::runtime_error: "order 7 is lost", thrown in shop::find_order.
NOINLINE void find_order(int number) {
    throw std::runtime_error("order " + std::to_string(number) + " is lost");
}

// shop::out_of_stock: "no more tea", thrown in shop::take.
NOINLINE void take(const char *product) {
    throw out_of_stock(std::string("no more ") + product);
}

// int 42.
NOINLINE void throw_int(int value) { throw value; }

// std::string, which is no std::exception and has no what().
NOINLINE void throw_string() { throw std::string("just a string, long enough for the heap"); }

// std::runtime_error "order 8 is lost" meets a noexcept function.
NOINLINE void never_throws() noexcept { find_order(8); }

// std::terminate without any exception.
NOINLINE void give_up() { std::terminate(); }

// std::runtime_error "order 9 is lost" in a second thread.
NOINLINE void in_thread() { std::thread(find_order, 9).join(); }

// std::runtime_error "order 10 is lost", caught; exit code 0.
NOINLINE void caught() {
    try {
        find_order(10);
    } catch (const std::exception &) {
    }
}

// std::runtime_error "order 11 is lost", caught, and thrown on from shop::rethrown.
NOINLINE void rethrown() {
    try {
        find_order(11);
    } catch (const std::exception &) {
        throw;
    }
}

// "pure virtual method called", from a constructor.
struct shape {
    shape() { measure(); }
    virtual ~shape() = default;
    NOINLINE void measure() { area(); }
    virtual double area() = 0;
};

struct square : shape {
    double area() override { return 1; }
};

NOINLINE void pure_virtual() { square made; }

} // namespace shop

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    const auto mode = [name](const char *other) { return std::strcmp(name, other) == 0; };
    if (mode("runtime_error"))
        shop::find_order(7);
    else if (mode("custom"))
        shop::take("tea");
    else if (mode("int"))
        shop::throw_int(42);
    else if (mode("string"))
        shop::throw_string();
    else if (mode("noexcept"))
        shop::never_throws();
    else if (mode("terminate"))
        shop::give_up();
    else if (mode("thread"))
        shop::in_thread();
    else if (mode("caught"))
        shop::caught();
    else if (mode("rethrown"))
        shop::rethrown();
    else if (mode("pure_virtual"))
        shop::pure_virtual();
    else {
        std::fprintf(stderr, "cpp_faults: no mode '%s'\n", name);
        return 64;
    }
    return 0;
}
