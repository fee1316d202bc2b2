/* The source of the kernels as C++, and what calls each with its buffers. */
#define __METAL_VERSION__ 230
#include "metal/kernels.metal"

#ifndef LIK_ADDRESS_SPACES
#undef thread
#undef device
#undef constant
#undef threadgroup
#include "kernels.h"

#include <cstdio>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <unistd.h>
#include <utility>

namespace {

/* Parameters come in pairs: emulated::at<n>, which says what is bound, and that. */
template <typename Kernel> struct caller;
template <typename... P> struct caller<void (*)(uint, uint, uint, P...)> {
    typedef std::tuple<P...> all;

    template <size_t I> static std::tuple_element_t<I, all> argument(void *const *buffers)
    {
        typedef std::tuple_element_t<I, all> type;
        if constexpr (I % 2 == 0) {
            (void)buffers;
            return type();
        } else {
            void *at = buffers[std::tuple_element_t<I - 1, all>::number];
            if constexpr (std::is_reference_v<type>)
                return *static_cast<std::remove_reference_t<type> *>(at);
            else
                return static_cast<type>(at);
        }
    }

    template <size_t... I>
    static void call(void (*kernel_at)(uint, uint, uint, P...), void *const *buffers, uint group, uint simd,
                     uint lane, std::index_sequence<I...>)
    {
        kernel_at(group, simd, lane, argument<I>(buffers)...);
    }

    template <size_t... I> static uint32_t declared(std::index_sequence<I...>)
    {
        return ((I % 2 == 0 ? 1u << number_of<I>() : 0u) | ...);
    }

    template <size_t I> static constexpr int number_of()
    {
        if constexpr (I % 2 == 0)
            return std::tuple_element_t<I, all>::number;
        else
            return 0;
    }
};

struct entry {
    struct emulated_kernel kernel_entry;
    uint32_t declared;
};

#define ENTRY(name)                                                                                        \
    {                                                                                                      \
        {#name,                                                                                            \
         [](void *const *buffers, uint32_t group, uint32_t simd, uint32_t lane) {                          \
             typedef caller<decltype(&name)> its;                                                          \
             its::call(&name, buffers, group, simd, lane,                                                  \
                       std::make_index_sequence<std::tuple_size_v<its::all>>());                           \
         }},                                                                                               \
            caller<decltype(&name)>::declared(                                                             \
                std::make_index_sequence<std::tuple_size_v<caller<decltype(&name)>::all>>())               \
    }

const struct entry entries[] = {
    ENTRY(lik_factors),        ENTRY(lik_score_half), ENTRY(lik_score_f32),   ENTRY(lik_score_f16),
    ENTRY(lik_score_bf16),     ENTRY(lik_score_e4m3), ENTRY(lik_score_e5m2),  ENTRY(lik_score_i8),
    ENTRY(lik_score_residual), ENTRY(lik_score_one_hot), ENTRY(lik_grad),       ENTRY(lik_grad_weights), ENTRY(lik_list_keys),
    ENTRY(lik_select),         ENTRY(lik_gather_keys), ENTRY(lik_sort_pass),   ENTRY(lik_write_best),
};

} // namespace

const struct emulated_kernel *emulated_kernel_of(const char *name)
{
    for (auto &e : entries) {
        if (strcmp(e.kernel_entry.name, name))
            continue;
        for (auto &k : lik_metal_kernels)
            if (!strcmp(k.name, name) && k.buffers == e.declared)
                return &e.kernel_entry;
        printf("EMULATOR %s declares buffers %#x, not those of its entry\n", name, e.declared);
        fflush(stdout);
        _exit(3);
    }
    printf("EMULATOR there is no kernel %s\n", name);
    fflush(stdout);
    _exit(3);
}
#endif
