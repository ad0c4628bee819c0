// A device for tests: its memory is the host's, but torch takes it for a device of its own, "pretend".
//
// Every operation runs on the host over the same memory. As on CUDA it is an error to mix tensors of the device with
// tensors of the host (numbers, and indices in `tensor[index]`, excepted) and to take a NumPy array of one.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/NativeFunctions.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

namespace {

using c10::IValue;
constexpr auto kType = c10::DeviceType::PrivateUse1;
const c10::Device kDevice(kType, 0);

struct Allocator final : at::Allocator {
  at::DataPtr allocate(size_t bytes) override {
    void* data = bytes ? std::malloc(bytes) : nullptr;
    return {data, data, &std::free, kDevice};
  }
  at::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};
Allocator allocator;
REGISTER_ALLOCATOR(kType, &allocator);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  void init() const override {}
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isAvailable() const override { return true; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto* impl = storage.unsafeGetStorageImpl();
    at::DataPtr data = allocator.allocate(bytes);
    if (impl->nbytes() && bytes) std::memcpy(data.get(), impl->data(), std::min(bytes, impl->nbytes()));
    impl->set_data_ptr_noswap(std::move(data));
    impl->set_nbytes(bytes);
  }
};
struct Registration {
  Registration() { at::RegisterPrivateUse1HooksInterface(new Hooks); }
} registration;

bool ours(const at::Tensor& tensor) { return tensor.defined() && tensor.device().type() == kType; }

// The same memory as a tensor of the host.
at::Tensor on_host(const at::Tensor& tensor) {
  if (!ours(tensor)) return tensor;
  if (tensor.is_sparse()) {
    return at::_sparse_coo_tensor_unsafe(on_host(tensor._indices()), on_host(tensor._values()), tensor.sizes(),
        tensor.options().device(at::kCPU), tensor.is_coalesced());
  }
  auto storage = tensor.storage();
  auto keep = storage;
  auto bytes = storage.nbytes();
  void* data = storage.mutable_data();
  at::DataPtr shared(data, new c10::Storage(keep), [](void* s) { delete static_cast<c10::Storage*>(s); }, at::kCPU);
  // What an `out=` needs more than that, it gets from the host; `returned` fetches it.
  c10::Storage host(c10::Storage::use_byte_size_t(), bytes, std::move(shared), c10::GetAllocator(at::kCPU), true);
  auto result = at::detail::make_tensor<c10::TensorImpl>(
      std::move(host), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) result.unsafeGetTensorImpl()->set_wrapped_number(true);
  if (tensor.is_conj()) result._set_conj(true);
  if (tensor.is_neg()) result._set_neg(true);
  return result;
}

at::Tensor fresh(const at::Tensor& host) {
  at::Tensor strided = at::detail::empty_strided_generic(
      host.sizes(), host.strides(), &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      host.scalar_type());
  on_host(strided).copy_(host);
  return strided;
}

struct Args {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  // ours, on the host
  bool ours_seen = false;
  const at::Tensor* foreign = nullptr;
};

at::Tensor taken(const at::Tensor& tensor, Args& args) {
  if (!tensor.defined()) return tensor;
  if (!ours(tensor)) {
    if (tensor.device().is_cpu() && tensor.dim() > 0) args.foreign = &tensor;
    return tensor;
  }
  args.ours_seen = true;
  for (auto& [mine, host] : args.pairs) if (mine.is_same(tensor)) return host;
  args.pairs.emplace_back(tensor, on_host(tensor));
  return args.pairs.back().second;
}

at::Tensor returned(const at::Tensor& host, Args& args) {
  if (!host.defined() || !host.device().is_cpu()) return host;
  if (host.is_sparse()) {
    return at::_sparse_coo_tensor_unsafe(fresh(host._indices()), fresh(host._values()), host.sizes(),
        host.options().device(kDevice), host.is_coalesced());
  }
  for (auto& [mine, own] : args.pairs) {
    if (own.is_same(host)) {
      if (!mine.is_sparse() && (mine.sizes() != own.sizes() || mine.strides() != own.strides())) {
        // An `out=` that was resized on the host.
        auto copy = fresh(own.contiguous());
        mine.unsafeGetTensorImpl()->set_storage_keep_dtype(copy.storage());
        mine.unsafeGetTensorImpl()->set_sizes_and_strides(copy.sizes(), copy.strides(), 0);
      }
      return mine;
    }
  }
  for (auto& [mine, own] : args.pairs) {
    if (!own.is_sparse() && host.has_storage() && own.storage().data() == host.storage().data() && own.storage().data()) {
      auto view = at::detail::make_tensor<c10::TensorImpl>(
          c10::TensorImpl::VIEW, c10::Storage(mine.storage()), mine.key_set(), host.dtype());
      view.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
      return view;
    }
  }
  return fresh(host);
}

const std::set<std::string> MAY_MIX = {
    "aten::copy_", "aten::_copy_from", "aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_",
    "aten::set_", "aten::_foreach_copy_"};

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto count = schema.arguments().size();
  const auto begin = stack->size() - count;
  Args args;
  for (size_t i = begin; i < stack->size(); ++i) {
    IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = taken(value.toTensor(), args);
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const at::Tensor& each : value.toTensorVector()) list.push_back(taken(each, args));
      value = c10::List<at::Tensor>(list);
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& each : value.toOptionalTensorList().vec())
        list.push_back(each ? std::optional<at::Tensor>(taken(*each, args)) : each);
      value = list;
    } else if (value.isDevice() && value.toDevice().type() == kType) {
      value = c10::Device(at::kCPU);
    }
  }
  const auto& name = schema.operator_name().name;
  TORCH_CHECK(!(args.ours_seen && args.foreign) || MAY_MIX.count(name),
      "Expected all tensors to be on the same device, but found at least two devices, pretend:0 and cpu! (", name, ")");
  op.callBoxed(stack);
  const auto first = stack->size() - schema.returns().size();
  for (size_t i = first; i < stack->size(); ++i) {
    IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = returned(value.toTensor(), args);
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const at::Tensor& each : value.toTensorVector()) list.push_back(returned(each, args));
      value = c10::List<at::Tensor>(list);
    }
  }
}

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(
      size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& dst, bool) {
  on_host(dst).copy_(on_host(self));
  return dst;
}

at::Tensor clone_sparse(const at::Tensor& self, std::optional<at::MemoryFormat>) {
  return at::_sparse_coo_tensor_unsafe(
      self._indices().clone(), self._values().clone(), self.sizes(), self.options(), self.is_coalesced());
}

const at::Tensor& resize(const at::Tensor& self, c10::IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  const size_t needed = (impl->numel() + impl->storage_offset()) * self.itemsize();
  if (needed > self.storage().nbytes()) {
    auto* storage = self.storage().unsafeGetStorageImpl();
    at::DataPtr data = allocator.allocate(needed);
    if (storage->nbytes()) std::memcpy(data.get(), storage->data(), storage->nbytes());
    storage->set_data_ptr_noswap(std::move(data));
    storage->set_nbytes(needed);
  }
  return self;
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("resize_", resize);
}

TORCH_LIBRARY_IMPL(_, SparsePrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) {
  m.impl("_indices", at::native::_indices_sparse);
  m.impl("_values", at::native::_values_sparse);
  m.impl("clone", clone_sparse);
  m.impl("indices", at::native::indices_sparse);
  m.impl("values", at::native::values_sparse);
  m.impl("_nnz", at::native::_nnz_sparse);
  m.impl("sparse_dim", at::native::sparse_dim_sparse);
  m.impl("dense_dim", at::native::dense_dim_sparse);
  m.impl("is_coalesced", at::native::is_coalesced_sparse);
  m.impl("_coalesced_", at::native::_coalesced_sparse_);
  m.impl("_sparse_coo_tensor_with_dims_and_tensors", at::native::new_with_dims_and_tensor_sparse_symint);
  m.impl("_sparse_coo_tensor_with_dims", at::native::new_with_dims_sparse);
}
